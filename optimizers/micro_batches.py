"""The micro-batches of one step, and the sum of their gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizers.combination import weighted_sum
from optimizers.gramian import check_task_weights
from optimizers.reuse import CoefficientReuse
from optimizers.task_gradients import PartialGradients, any_reached, loss_values, partial_gradients
from optimizers.trainable import Trainable


@dataclass(frozen=True)
class MicroBatch:
    """The losses of one micro-batch, checked.

    Attributes:
        losses: K scalar tensors, multiplied by ``scale``.
        values: (K,) their values in true units.
        weights: (K,) task weights.
        scale: of a GradScaler.
        trainable: what is differentiated.
    """

    losses: Sequence[Tensor]
    values: Tensor
    weights: Tensor
    scale: float
    trainable: Trainable


@dataclass
class GradientSum:
    """Losses and gradients of one micro-batch, or of several added up, in true units.

    Attributes:
        parameters: P, that were differentiated.
        weights: (K,) task weights.
        losses: (K,).
        gradients: one list of P a task, or a single one of the weighted sum where ``reused``.
        reused: whether coefficients of an earlier step were used.
    """

    parameters: Sequence[Tensor]
    weights: Tensor
    losses: Tensor
    gradients: PartialGradients
    reused: bool

    def check(self, batch: MicroBatch) -> None:
        """Refuse to add what does not fit.

        Raises:
            ValueError: for other tasks, task weights or parameters.
        """
        if len(batch.weights) != len(self.weights):
            raise ValueError(
                f"the micro-batches of one step must have the same tasks: got {len(batch.weights)} losses after "
                f"{len(self.weights)}"
            )
        if not batch.weights.equal(self.weights):
            raise ValueError(
                f"the micro-batches of one step must have the same task_weights: got {batch.weights.tolist()} after "
                f"{self.weights.tolist()}"
            )
        if [id(p) for p in batch.trainable.parameters] != [id(p) for p in self.parameters]:
            raise ValueError(
                "the trainable parameters changed between the micro-batches of one step; freeze and unfreeze them "
                "between steps"
            )

    def add(self, other: "GradientSum") -> None:
        """Add what passed :meth:`check`, and empty it task by task, so that memory is freed."""
        self.losses = self.losses + other.losses
        for mine, new in zip(self.gradients, other.gradients, strict=True):
            mine[:] = _sum(mine, new)
            new.clear()

    def unreached(self) -> list[int]:
        """Positions of the parameters that no task reaches."""
        return [i for i, column in enumerate(zip(*self.gradients, strict=True)) if not any_reached(column)]


def micro_batch(
    losses: Sequence[Tensor], task_weights: Tensor | Sequence[float] | None, scale: float, trainable: Trainable
) -> MicroBatch:
    """Check losses, weights and scale.

    Raises:
        ValueError: as :meth:`optimizers.MultiTaskOptimizer.backward`.
    """
    values = loss_values(losses)
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale = {scale} must be finite and > 0: what the losses were multiplied by")
    weights = check_task_weights(task_weights, torch.empty(len(values), len(values)))
    if weights.dim() != 1:
        raise ValueError(f"task_weights must have shape ({len(values)},), got {tuple(weights.shape)}")
    return MicroBatch(losses, values / scale, weights, scale, trainable)


def differentiate(batch: MicroBatch, reuse: CoefficientReuse) -> GradientSum:
    """Gradients of one micro-batch, by one backward a task, or by one altogether where ``reuse`` fits."""
    reused = reuse.fits(batch.weights)
    if reused:
        assert reuse.coefficients is not None
        coefficients, weights = reuse.coefficients.tolist(), batch.weights.tolist()
        gradients = [batch.trainable.gradient_of_sum(batch.losses, coefficients, weights)]
    else:
        gradients = partial_gradients(batch.losses, batch.trainable.parameters)
    if batch.scale != 1.0:
        gradients = [weighted_sum([of_task], [1 / batch.scale]) for of_task in gradients]
    return GradientSum(batch.trainable.parameters, batch.weights, batch.values, gradients, reused)


def _sum(mine: list[Tensor | None], new: list[Tensor | None]) -> list[Tensor | None]:
    total = [b if a is None else a for a, b in zip(mine, new, strict=True)]
    both = [(i, a, b) for i, (a, b) in enumerate(zip(mine, new, strict=True)) if a is not None and b is not None]
    if both:
        indices, first, second = zip(*both, strict=True)
        for i, part in zip(indices, torch._foreach_add(first, second), strict=True):
            total[i] = part
    return total
