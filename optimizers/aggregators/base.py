"""From task gradients to one update: by coefficients, or by an aggregator that needs the gradients themselves."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from optimizers.gradients._gramian import check_gramian, gramian_of_parameters
from optimizers.gradients._task_gradients import PartialGradients, any_reached
from optimizers.training.diagnostics import NonFiniteError
from optimizers.training.distributed import from_first

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
    if gramian_of_parameters([update]).isfinite().all():
        return
    # Squares of float64 may overflow where their roots do not.
    if not all(part.isfinite().all() for part in update if part is not None):
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
