"""What an aggregator is, and what it works on: Gramian and weights, checked and at a scale where nothing overflows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from optimizers.gradients.checks import check_gramian, check_task_weights
from optimizers.linalg import power_of_two

Aggregator = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class JacobianAggregator(Protocol):
    """An aggregator that needs the gradients themselves, not only their Gramian."""

    def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
        """(K, P) gradients and (K,) weights → (P,) update."""
        ...


@runtime_checkable
class ScheduledAggregator(Protocol):
    """An aggregator that knows its coefficients before the gradients, so that one backward pass is enough."""

    def ahead(self, tasks: int) -> Tensor:
        """(K,) float64 coefficients of the next step, on the CPU."""
        ...

    def advance(self) -> None:
        """Go on to the next step."""
        ...


def check_aggregator(aggregator: Any) -> None:
    """Refuse what is neither a function of the Gramian nor a :class:`JacobianAggregator`.

    Raises:
        TypeError: naming its type.
    """
    if not callable(aggregator) and not isinstance(aggregator, JacobianAggregator):
        raise TypeError(
            f"aggregator must be a function (gramian, task_weights) -> coefficients such as optimizers.linear, or have "
            f"a method combine(jacobian, task_weights), got {type(aggregator).__name__}"
        )


class Scaled(NamedTuple):
    """Answer of :func:`scaled`; all float64."""

    gramian: Tensor
    """(..., K, K), exactly symmetric, the largest diagonal entry in [1, 2) or 0."""
    weights: Tensor
    """(..., K), the largest in [1, 2)."""
    unit: Tensor
    """(..., 1), a power of two: the task weights are ``weights * unit``."""

    def weighted_gramian(self) -> Tensor:
        """(..., K, K) Gramian of the ω_i g_i, up to a power of two."""
        return self.gramian * self.weights[..., :, None] * self.weights[..., None, :]


class UnitGramian(NamedTuple):
    """Answer of :func:`unit_gramian`; all float64 or bool."""

    cosines: Tensor
    """(..., K, K) cosines between the task gradients; rows and columns of absent tasks are those of the identity."""
    norms: Tensor
    """(..., K) ‖g_i‖."""
    weights: Tensor
    """(..., K) task weights ω."""
    present: Tensor
    """(..., K) bool, ‖g_i‖ > 0 and ω_i > 0."""


def scaled(gramian: Tensor, task_weights: Tensor | Sequence[float] | None) -> Scaled:
    """Gramian and weights, divided by powers of two.

    These are exact: a method that is homogeneous gives the same coefficients, to the bit, for Gramians that differ by
    a power of two.

    Args:
        gramian: (..., K, K) float32 or float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.

    Raises:
        ValueError: for a matrix that is no Gramian, or bad weights.

    Example:
        >>> scaled(1e300 * torch.eye(2).double(), [1.0, 4.0]).weighted_gramian()
        tensor([[0.0933, 0.0000],
                [0.0000, 1.4932]], dtype=torch.float64)
    """
    M = check_gramian(gramian)
    weights = check_task_weights(task_weights, M)
    tasks = M.shape[-1]
    batch = torch.broadcast_shapes(M.shape[:-2], weights.shape[:-1])
    weights = weights.expand(*batch, tasks)
    unit = power_of_two(weights.amax(-1, keepdim=True))
    M = M / power_of_two(M.diagonal(dim1=-2, dim2=-1).amax(-1))[..., None, None]
    M = (M + M.mT) / 2
    return Scaled(M.expand(*batch, tasks, tasks), weights / unit, unit)


def unit_gramian(gramian: Tensor, task_weights: Tensor | Sequence[float] | None) -> UnitGramian:
    """Cosines between task gradients, for methods that look at g_i/‖g_i‖.

    Raises:
        ValueError: for a matrix that is no Gramian, or bad weights.

    Example:
        >>> unit_gramian(torch.tensor([[25.0, 8.0], [8.0, 4.0]]), None).cosines
        tensor([[1.0000, 0.8000],
                [0.8000, 1.0000]], dtype=torch.float64)
    """
    M = check_gramian(gramian)
    weights = check_task_weights(task_weights, M)
    tasks = M.shape[-1]
    batch = torch.broadcast_shapes(M.shape[:-2], weights.shape[:-1])
    M = M.expand(*batch, tasks, tasks)
    weights = weights.expand(*batch, tasks)
    norms = M.diagonal(dim1=-2, dim2=-1).sqrt()
    present = (norms > 0) & (weights > 0)
    inverse = torch.where(present, 1.0 / torch.where(present, norms, 1.0), 0.0)
    cosines = ((M / 2 + M.mT / 2) * inverse[..., :, None] * inverse[..., None, :]).clamp(-1.0, 1.0)
    identity = torch.eye(tasks, dtype=torch.bool, device=M.device)
    return UnitGramian(torch.where(identity, 1.0, cosines), norms, weights, present)
