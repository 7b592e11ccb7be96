"""The line from losses to an update: losses → task gradients → Gramian → coefficients → weighted sum.

:func:`joint_update` takes it for all parameters; :func:`update_through_features` stops it at a shared representation,
and :func:`reused_update` needs no Gramian, as the losses were weighted by the coefficients of an earlier step.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from optimizers.aggregators.base import JacobianAggregator
from optimizers.errors import NonFiniteError
from optimizers.gradients._gramian import gramian_of_parameters
from optimizers.gradients._task_gradients import PartialGradients, TaskGradients, any_reached, filled
from optimizers.gradients._weighted_sum import weighted_sum
from optimizers.gradients.checks import check_gramian
from optimizers.training.coefficients import CoefficientReuse
from optimizers.training.diagnostics import StepDiagnostics, fresh_diagnostics
from optimizers.training.distributed import average_gradients, averaged, from_first, world_size
from optimizers.training.features import gradient_through, gradients_at
from optimizers.training.micro_batches import MicroBatch
from optimizers.training.tracking import GradientTracking

Observer = Callable[[TaskGradients, Tensor], None]
Update = list[Tensor | None]
"""One new tensor a parameter, multiplied by the micro-batch's scale; None where no task reaches it."""


def joint_update(
    gradients: PartialGradients,
    batch: MicroBatch,
    losses: Tensor,
    aggregate: CoefficientReuse | JacobianAggregator,
    tracking: GradientTracking,
    group: Any,
    observer: Observer | None,
    release: Callable[[], object],
) -> tuple[Update, StepDiagnostics]:
    """The update of task gradients that were averaged over the processes.

    Args:
        gradients: K lists of P, in true units; emptied on the way, so that the update takes the memory of those before.
        batch: the last micro-batch, for its task weights, scale and parameters.
        losses: (K,) of the step, for the diagnostics.
        aggregate: gives coefficients, or combines the gradients themselves.
        tracking: of the gradients of earlier steps, which coefficients are solved from where there are any.
        group: process group.
        observer: of the optimizer.
        release: called when nothing can fail any more, before the update takes memory.

    Raises:
        NonFiniteError: for a gradient that is not finite, on every process alike.
        ValueError, SolverError: as :meth:`optimizers.MultiTaskOptimizer.backward`.
    """
    parameters, _ = batch.trainable.split(batch.trainable.parameters)
    shared, others = ([part[which] for part in map(batch.trainable.split, gradients)] for which in (0, 1))
    gradients.clear()  # so that the sums below can release them
    gramian = gramian_of_parameters(shared)
    check_finite_gramian(gramian)
    if observer is not None:
        observer(filled(shared, parameters), gramian)
    rest = weighted_sum(others, (batch.scale * batch.weights).tolist(), release=True)
    check_finite(rest, "a gradient of the weighted sum, of a parameter that is not shared,")
    if isinstance(aggregate, JacobianAggregator):
        combined = jacobian_update(aggregate, shared, parameters, batch.weights, group)
        if batch.scale != 1.0:
            combined = weighted_sum([combined], [batch.scale])
        release()
        return batch.trainable.merged(combined, rest), fresh_diagnostics(losses, gramian, None, {})
    tracking.check(shared)
    tracked = tracking.gramian()
    solution = aggregate.solve(gramian if tracked is None else tracked, batch.weights, batch.device)
    if tracked is not None:
        solution = solution._replace(diagnostics={**solution.diagnostics, "averaged": tracked})
    aggregate.keep(solution)
    release()
    tracking.add(shared)
    combined = weighted_sum(shared, (batch.scale * solution.coefficients).tolist(), release=True)
    diagnostics = fresh_diagnostics(losses, gramian, solution.coefficients, solution.diagnostics)
    return batch.trainable.merged(combined, rest), diagnostics


def reused_update(gradients: PartialGradients, batch: MicroBatch, release: Callable[[], object]) -> Update:
    """The update of the gradient of a sum that coefficients of an earlier step weighted.

    Args:
        gradients, batch, release: as for :func:`joint_update`; the gradients are one list of P.

    Raises:
        NonFiniteError: if it is not finite.
    """
    check_finite(gradients[0], "a gradient of the weighted sum")
    release()
    return weighted_sum(gradients, [batch.scale], release=True)


def update_through_features(
    batch: MicroBatch,
    losses: Tensor,
    aggregate: CoefficientReuse | JacobianAggregator,
    group: Any,
    observer: Observer | None,
    check_unreached: Callable[[list[int], MicroBatch], None],
) -> tuple[Update, StepDiagnostics]:
    """Coefficients of the features' Gramian, and one backward through what computed them.

    The features of the processes are parts of one representation, so the Gramian of the joint batch is the sum of
    the processes' and not that of an average.

    Args:
        batch: with features.
        losses, aggregate, group, observer: as for :func:`joint_update`.
        check_unreached: called with the positions of the parameters that no task reaches, and the micro-batch.

    Raises:
        ValueError: for an aggregator that has no coefficients; and as :func:`joint_update`.
    """
    if isinstance(aggregate, JacobianAggregator):
        raise ValueError(
            f"features need coefficients, which {type(aggregate).__name__} does not have; pass an aggregator of the "
            "Gramian"
        )
    before, behind = batch.trainable.split(batch.trainable.parameters)
    of_features, of_heads = gradients_at(batch.features, batch.losses, behind)
    gramian = averaged(gramian_of_parameters(of_features), group, batch.device) / (world_size(group) * batch.scale**2)
    check_finite_gramian(gramian)
    if observer is not None:
        observer(filled(of_features, batch.features), gramian)
    rest = weighted_sum(of_heads, batch.weights.tolist())
    solution = aggregate.solve(gramian, batch.weights, batch.device)
    outer = weighted_sum(of_features, solution.coefficients.tolist())
    through = [None if part is None else part.clone() for part in gradient_through(batch.features, outer, before)]
    update = batch.trainable.merged(through, rest)
    check_unreached([i for i, part in enumerate(update) if part is None], batch)
    updates = [update]
    average_gradients(updates, batch.trainable.parameters, group)
    check_finite(updates[0], "a gradient of the update")
    aggregate.keep(solution)
    return updates[0], fresh_diagnostics(losses, gramian, solution.coefficients, solution.diagnostics)


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
