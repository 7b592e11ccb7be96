"""From task gradients to one update: by coefficients, or by an aggregator that needs the gradients themselves."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from optimizers.diagnostics import NonFiniteError
from optimizers.distributed import from_first
from optimizers.gramian import check_gramian
from optimizers.task_gradients import PartialGradients, any_reached

Aggregator = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class JacobianAggregator(Protocol):
    """An aggregator that needs the gradients themselves, not only their Gramian."""

    def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
        """(K, P) gradients and (K,) weights → (P,) update."""
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


def weighted_sum(gradients: PartialGradients, factors: Sequence[float]) -> list[Tensor | None]:
    """Σ c_i g_i as new tensors; None where no task reaches the parameter.

    Example:
        >>> weighted_sum([[torch.ones(1), None, None], [torch.ones(1), torch.ones(1), None]], [1.0, 4.0])
        [tensor([5.]), tensor([4.]), None]
    """
    total: list[Tensor | None] = [None] * len(gradients[0])
    for of_task, factor in zip(gradients, factors, strict=True):
        parts = [(i, part) for i, part in enumerate(of_task) if part is not None]
        fresh = [(i, part) for i, part in parts if total[i] is None]
        known = [(total[i], part) for i, part in parts if total[i] is not None]
        if known:
            sums, added = zip(*known, strict=True)
            torch._foreach_add_(sums, added, alpha=factor)
        if fresh:
            indices, first = zip(*fresh, strict=True)
            for i, product in zip(indices, torch._foreach_mul(first, factor), strict=True):
                total[i] = product
    return total


def jacobian_update(
    aggregator: JacobianAggregator,
    gradients: PartialGradients,
    parameters: Sequence[Tensor],
    weights: Tensor,
    group: Any = None,
) -> list[Tensor | None]:
    """The aggregator's update, parameter by parameter; None where no task reaches the parameter.

    Raises:
        ValueError: if the aggregator gives another shape than (P,), or numbers that are not finite.
    """
    if not parameters:
        return []
    sizes = [p.numel() for p in parameters]
    dtype = reduce(torch.promote_types, {p.dtype for p in parameters})
    jacobian = torch.zeros(len(gradients), sum(sizes), dtype=dtype, device=parameters[0].device)
    for row, of_task in zip(jacobian, gradients, strict=True):
        for slot, part in zip(row.split(sizes), of_task, strict=True):
            if part is not None:
                slot.copy_(part.reshape(-1))
    update = aggregator.combine(jacobian, weights.to(jacobian))
    if update.shape != (sum(sizes),) or not update.isfinite().all():
        raise ValueError(
            f"{aggregator!r} must combine finite (K, P) gradients into a finite update of shape ({sum(sizes)},), got "
            f"shape {tuple(update.shape)}, {int((~update.isfinite()).sum())} entries not finite"
        )
    update = from_first(update, group, jacobian.device)
    columns = zip(*gradients, strict=True)
    return [
        slot.reshape(p.shape).to(p) if any_reached(column) else None
        for slot, p, column in zip(update.split(sizes), parameters, columns, strict=True)
    ]


def check_finite_gramian(gramian: Tensor) -> None:
    """Refuse the Gramian of gradients that are not finite.

    Raises:
        NonFiniteError: naming the task.
    """
    try:
        check_gramian(gramian)
    except ValueError as error:
        raise NonFiniteError(str(error)) from None


def check_finite(update: Sequence[Tensor | None], name: str) -> None:
    """Refuse an update that is not finite.

    Raises:
        NonFiniteError: saying so of ``name``.
    """
    finite = [part.isfinite().all() for part in update if part is not None]
    if finite and not torch.stack([part.to(finite[0].device) for part in finite]).all():
        raise NonFiniteError(f"{name} is not finite")


def check_coefficients(coefficients: Tensor, tasks: int, aggregator: Any) -> None:
    """Refuse coefficients that no update can be made of.

    Raises:
        ValueError: naming the aggregator and what it gave.
    """
    if coefficients.shape != (tasks,) or not coefficients.isfinite().all():
        raise ValueError(
            f"{aggregator!r} must give {tasks} finite coefficients, one a task, got {coefficients.tolist()}"
        )
