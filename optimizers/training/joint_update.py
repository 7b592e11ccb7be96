"""The update of one step: micro-batches added up, averaged over the processes, and aggregated."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from optimizers.aggregators.base import Aggregator, JacobianAggregator
from optimizers.errors import NonFiniteError
from optimizers.gradients._gramian import gramian_of_parameters
from optimizers.gradients._task_gradients import (
    PartialGradients,
    TaskGradients,
    any_reached,
    filled,
    refuse_reentrant_checkpoints,
)
from optimizers.gradients.checks import check_gramian
from optimizers.gradients.weighted_sum import weighted_sum
from optimizers.training.coefficients import CoefficientSolver
from optimizers.training.diagnostics import StepDiagnostics, fresh_diagnostics, stale_diagnostics
from optimizers.training.distributed import average_gradients, averaged, from_first, world_size
from optimizers.training.features import gradient_through, gradients_at
from optimizers.training.micro_batches import GradientSum, MicroBatch, empty_sum, gradient_sum

Observer = Callable[[TaskGradients, Tensor], None]
Update = tuple[list[Tensor | None], StepDiagnostics]


class JointUpdate:
    """Makes one update of the micro-batches of a step; see :class:`optimizers.MultiTaskOptimizer`.

    Args:
        aggregator: of the optimizer.
        solver: gives its coefficients; not used for a :class:`JacobianAggregator`.

    Attributes:
        pending: sum of the micro-batches that wait, or None.
    """

    def __init__(self, aggregator: Aggregator | JacobianAggregator, solver: CoefficientSolver) -> None:
        self.aggregator, self.solver = aggregator, solver
        self.pending: GradientSum | None = None
        self._unreached: list[int] = []

    def accumulate(self, batch: MicroBatch) -> None:
        """Add a micro-batch to ``pending``."""
        if self.pending is None:
            joint = empty_sum(batch, self.solver.reuse)
        else:
            joint = self.pending
            joint.check(batch)
        joint.add(batch, self.solver.reuse)
        self.pending = joint
        self._look_for_checkpoints(joint.unreached(), batch)

    def update(
        self,
        batch: MicroBatch,
        last: StepDiagnostics | None,
        observer: Observer | None,
        release: Callable[[], None] | None = None,
    ) -> Update:
        """The update of ``pending`` and a last micro-batch, and what to report of it.

        Args:
            batch: the last micro-batch of this process.
            last: what the step before reported.
            observer: of the optimizer.
            release: called when nothing can fail any more, before the update takes memory.

        Returns:
            One new tensor a parameter, multiplied by the batch's scale; None where no task reaches it.

        Raises:
            NonFiniteError: for a loss or gradient, on every process alike.
            ValueError, SolverError: as :meth:`optimizers.MultiTaskOptimizer.backward`.
        """
        if self.pending is not None:
            self.pending.check(batch)
        group, device = self.solver.process_group, batch.trainable.parameters[0].device
        losses = batch.values if self.pending is None else self.pending.losses + batch.values
        losses = averaged(losses, group, device)
        if not losses.isfinite().all():
            task = int((~losses.isfinite()).nonzero()[0])
            raise NonFiniteError(f"loss of task {task} is {losses[task].item()}")
        if batch.features and not self.solver.reuse.fits(batch.weights):
            return self._through_features(batch, losses, observer)
        joint = self._joint(batch)
        average_gradients(joint.gradients, joint.parameters, group)
        if not any(any_reached(of_task) for of_task in joint.gradients):
            raise ValueError(
                "the losses reach no parameter of the optimizer: was the model replaced, or sharded, after the "
                "optimizer was built?"
            )
        if joint.reused:
            return self._reused(joint.gradients, batch, losses, last, release)
        return self._resolved(joint.gradients, batch, losses, observer, release)

    def _joint(self, batch: MicroBatch) -> GradientSum:
        """The sum with ``pending``, which is emptied."""
        if self.pending is None:
            joint = gradient_sum(batch, self.solver.reuse)
        else:
            joint = self.pending
            joint.add(batch, self.solver.reuse)
        self.pending = None
        self._look_for_checkpoints(joint.unreached(), batch)
        return joint

    def _look_for_checkpoints(self, unreached: list[int], batch: MicroBatch) -> None:
        if unreached and unreached != self._unreached:
            refuse_reentrant_checkpoints(batch.losses)
        self._unreached = unreached

    def _reused(
        self,
        gradients: PartialGradients,
        batch: MicroBatch,
        losses: Tensor,
        last: StepDiagnostics | None,
        release: Callable[[], None] | None,
    ) -> Update:
        reuse = self.solver.reuse
        assert reuse.coefficients is not None
        check_finite(gradients[0], "a gradient of the weighted sum")
        if release is not None:
            release()
        reuse.count()
        return weighted_sum(gradients, [batch.scale], release=True), stale_diagnostics(losses, reuse.coefficients, last)

    def _resolved(
        self,
        gradients: PartialGradients,
        batch: MicroBatch,
        losses: Tensor,
        observer: Observer | None,
        release: Callable[[], None] | None,
    ) -> Update:
        here, weights = batch.trainable, batch.weights
        parameters, _ = here.split(here.parameters)
        shared, others = ([part[which] for part in map(here.split, gradients)] for which in (0, 1))
        gradients.clear()  # so that the sums below can release them
        M = gramian_of_parameters(shared)
        check_finite_gramian(M)
        if observer is not None:
            observer(filled(shared, parameters), M)
        rest = weighted_sum(others, (batch.scale * weights).tolist(), release=True)
        check_finite(rest, "a gradient of the weighted sum, of a parameter that is not shared,")
        if isinstance(self.aggregator, JacobianAggregator):
            combined = jacobian_update(self.aggregator, shared, parameters, weights, self.solver.process_group)
            if batch.scale != 1.0:
                combined = weighted_sum([combined], [batch.scale])
            if release is not None:
                release()
            return here.merged(combined, rest), fresh_diagnostics(losses, M, None, {})
        coefficients, fields = self.solver.solve(M, weights, self.aggregator, here.parameters[0].device)
        self.solver.keep()
        if release is not None:
            release()
        combined = weighted_sum(shared, (batch.scale * coefficients).tolist(), release=True)
        return here.merged(combined, rest), fresh_diagnostics(losses, M, coefficients, fields)

    def _through_features(self, batch: MicroBatch, losses: Tensor, observer: Observer | None) -> Update:
        """Coefficients of the features' Gramian, and one backward through what computed them.

        The features of the processes are parts of one representation, so the Gramian of the joint batch is the sum of
        the processes' and not that of an average.
        """
        if isinstance(self.aggregator, JacobianAggregator):
            raise ValueError(
                f"features need coefficients, which {type(self.aggregator).__name__} does not have; pass an aggregator "
                "of the Gramian"
            )
        here, weights, group = batch.trainable, batch.weights, self.solver.process_group
        device = here.parameters[0].device
        trunk, heads = here.split(here.parameters)
        of_features, of_heads = gradients_at(batch.features, batch.losses, heads)
        M = averaged(gramian_of_parameters(of_features), group, device) / (world_size(group) * batch.scale**2)
        check_finite_gramian(M)
        if observer is not None:
            observer(filled(of_features, batch.features), M)
        rest = weighted_sum(of_heads, weights.tolist())
        coefficients, fields = self.solver.solve(M, weights, self.aggregator, device)
        through = gradient_through(batch.features, weighted_sum(of_features, coefficients.tolist()), trunk)
        updates: PartialGradients = [here.merged([None if part is None else part.clone() for part in through], rest)]
        self._look_for_checkpoints([i for i, part in enumerate(updates[0]) if part is None], batch)
        average_gradients(updates, here.parameters, group)
        check_finite(updates[0], "a gradient of the update")
        self.solver.keep()
        return updates[0], fresh_diagnostics(losses, M, coefficients, fields)


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
