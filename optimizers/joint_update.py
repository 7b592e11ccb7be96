"""The update of one step: micro-batches added up, averaged over the processes, and aggregated."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from optimizers.combination import (
    Aggregator,
    JacobianAggregator,
    check_coefficients,
    check_finite,
    check_finite_gramian,
    jacobian_update,
    weighted_sum,
)
from optimizers.diagnostics import NonFiniteError, StepDiagnostics, fresh_diagnostics, stale_diagnostics
from optimizers.distributed import average_gradients, averaged, from_first
from optimizers.gramian import gramian_of_parameters
from optimizers.micro_batches import GradientSum, MicroBatch, differentiate
from optimizers.reuse import CoefficientReuse
from optimizers.task_gradients import (
    PartialGradients,
    TaskGradients,
    any_reached,
    filled,
    refuse_reentrant_checkpoints,
)

Observer = Callable[[TaskGradients, Tensor], None]
Aggregate = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Any]]]


class JointUpdate:
    """Makes one update of the micro-batches of a step; see :class:`optimizers.MultiTaskOptimizer`.

    Args:
        aggregator: of the optimizer.
        aggregate: gives the aggregator's coefficients and further fields of :class:`StepDiagnostics`; not called for a
            :class:`JacobianAggregator`.
        reuse: coefficients for the steps between two solutions.
        process_group: of the optimizer.

    Attributes:
        pending: sum of the micro-batches that wait, or None.
    """

    def __init__(
        self,
        aggregator: Aggregator | JacobianAggregator,
        aggregate: Aggregate,
        reuse: CoefficientReuse,
        process_group: Any,
    ) -> None:
        self.aggregator, self.aggregate = aggregator, aggregate
        self.reuse = reuse
        self.process_group = process_group
        self.pending: GradientSum | None = None
        self._unreached: list[int] = []

    def accumulate(self, batch: MicroBatch) -> None:
        """Add a micro-batch to ``pending``."""
        if self.pending is not None:
            self.pending.check(batch)
        self.pending = self._take(batch)

    def update(
        self, batch: MicroBatch, last: StepDiagnostics | None, observer: Observer | None
    ) -> tuple[list[Tensor | None], StepDiagnostics]:
        """The update of ``pending`` and a last micro-batch, and what to report of it.

        Args:
            batch: the last micro-batch of this process.
            last: what the step before reported.
            observer: of the optimizer.

        Returns:
            One new tensor a parameter, multiplied by the batch's scale; None where no task reaches it.

        Raises:
            NonFiniteError: for a loss or gradient, on every process alike.
            ValueError: as :meth:`optimizers.MultiTaskOptimizer.backward`.
        """
        if self.pending is not None:
            self.pending.check(batch)
        parameters = batch.trainable.parameters
        losses = batch.values if self.pending is None else self.pending.losses + batch.values
        losses = averaged(losses, self.process_group, parameters[0].device)
        if not losses.isfinite().all():
            task = int((~losses.isfinite()).nonzero()[0])
            raise NonFiniteError(f"loss of task {task} is {losses[task].item()}")
        joint = self._take(batch)
        average_gradients(joint.gradients, parameters, self.process_group)
        if not any(any_reached(of_task) for of_task in joint.gradients):
            raise ValueError(
                "the losses reach no parameter of the optimizer: was the model replaced, or sharded, after the "
                "optimizer was built?"
            )
        if joint.reused:
            return self._reused(joint.gradients, batch, losses, last)
        return self._resolved(joint.gradients, batch, losses, observer)

    def _take(self, batch: MicroBatch) -> GradientSum:
        """The sum with ``pending``, which is emptied."""
        added = differentiate(batch, self.reuse)
        unreached = added.unreached()
        if unreached and unreached != self._unreached:
            refuse_reentrant_checkpoints(batch.losses)
        self._unreached = unreached
        joint, self.pending = self.pending, None
        if joint is None:
            return added
        joint.add(added)
        return joint

    def _reused(
        self, gradients: PartialGradients, batch: MicroBatch, losses: Tensor, last: StepDiagnostics | None
    ) -> tuple[list[Tensor | None], StepDiagnostics]:
        assert self.reuse.coefficients is not None
        check_finite(gradients[0], "a gradient of the weighted sum")
        self.reuse.count()
        return weighted_sum(gradients, [batch.scale]), stale_diagnostics(losses, self.reuse.coefficients, last)

    def _resolved(
        self, gradients: PartialGradients, batch: MicroBatch, losses: Tensor, observer: Observer | None
    ) -> tuple[list[Tensor | None], StepDiagnostics]:
        here, weights = batch.trainable, batch.weights
        parameters, _ = here.split(here.parameters)
        shared, others = ([part[which] for part in map(here.split, gradients)] for which in (0, 1))
        M = gramian_of_parameters(shared)
        check_finite_gramian(M)
        if observer is not None:
            observer(filled(shared, parameters), M)
        rest = weighted_sum(others, weights.tolist())
        check_finite(rest, "a gradient of the weighted sum, of a parameter that is not shared,")
        coefficients: Tensor | None = None
        fields: dict[str, Any] = {}
        if isinstance(self.aggregator, JacobianAggregator):
            combined = jacobian_update(self.aggregator, shared, parameters, weights, self.process_group)
        else:
            coefficients, fields = self.aggregate(M, weights)
            check_coefficients(coefficients, len(M), self.aggregator)
            coefficients = from_first(coefficients.double().cpu(), self.process_group, here.parameters[0].device)
            self.reuse.keep(coefficients, weights)
            combined = weighted_sum(shared, coefficients.tolist())
        update = here.merged(combined, rest)
        if batch.scale != 1.0:
            update = weighted_sum([update], [batch.scale])
        return update, fresh_diagnostics(losses, M, coefficients, fields)
