"""Small dense linear algebra over leading dimensions."""

import torch
from torch import Tensor


def times(M: Tensor, x: Tensor) -> Tensor:
    """Mx over leading dimensions."""
    return (M @ x[..., None])[..., 0]


def quadratic(M: Tensor, x: Tensor) -> Tensor:
    """xᵀMx over leading dimensions."""
    return (x * times(M, x)).sum(-1)


def power_of_two(x: Tensor) -> Tensor:
    """The largest power of two that is ≤ |x|; 1 for 0. Dividing by it is exact.

    Example:
        >>> power_of_two(torch.tensor([0.0, 5.0, 8.0]).double())
        tensor([1., 4., 8.], dtype=torch.float64)
    """
    exponent = torch.frexp(x.abs()).exponent - 1
    return torch.where(x == 0, 1.0, torch.ldexp(torch.ones_like(x), exponent))
