"""PCGrad: project each gradient off those it conflicts with (Yu et al., NeurIPS 2020, arXiv:2001.06782)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from optimizers.gramian import check_gramian, check_task_weights


def pcgrad(
    gramian: Tensor,
    task_weights: Tensor | Sequence[float] | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Coefficients of the sum of the mutually projected gradients ω_ig_i.

    Args:
        gramian: (..., K, K) float32 or float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.
        generator: draws the order in which each task visits the others, as in the paper; without it the order
            is that of the tasks, so that the result is a function of the Gramian. The order matters for K > 2 only.

    Returns:
        (..., K) float64.

    Raises:
        ValueError: for a matrix that is no Gramian, or bad weights.

    Example:
        Orthogonal gradients stay; opposite ones cancel:

        >>> pcgrad(torch.eye(2))
        tensor([1., 1.], dtype=torch.float64)
        >>> M = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> pcgrad(M) @ M.double() @ pcgrad(M)
        tensor(0., dtype=torch.float64)
    """
    M = check_gramian(gramian)
    weights = check_task_weights(task_weights, M)
    tasks = M.shape[-1]
    batch = torch.broadcast_shapes(M.shape[:-2], weights.shape[:-1])
    weights = weights.expand(*batch, tasks)
    M = M.expand(*batch, tasks, tasks) * weights[..., :, None] * weights[..., None, :]
    total = torch.zeros_like(weights)
    for task in range(tasks):
        order = range(tasks) if generator is None else torch.randperm(tasks, generator=generator).tolist()
        coefficients = torch.zeros_like(weights)
        coefficients[..., task] = 1.0
        for other in order:
            if other == task:
                continue
            product = (coefficients * M[..., other]).sum(-1)
            square = M[..., other, other]
            conflict = (product < 0) & (square > 0)
            coefficients[..., other] -= torch.where(conflict, product / torch.where(square > 0, square, 1.0), 0.0)
        total += coefficients
    return total * weights
