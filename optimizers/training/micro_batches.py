"""The micro-batches of one step, and the sum of their gradients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizers.gradients._task_gradients import PartialGradients, any_reached, loss_values, partial_gradients
from optimizers.gradients._weighted_sum import weighted_sum
from optimizers.gradients.checks import check_task_weights
from optimizers.training.features import as_features, split_at
from optimizers.training.trainable import Trainable


@dataclass(frozen=True)
class MicroBatch:
    """The losses of one micro-batch, checked, and how they are to be differentiated.

    Attributes:
        losses: K scalar tensors, multiplied by ``scale``.
        values: (K,) their values in true units.
        weights: (K,) task weights.
        scale: of a GradScaler.
        trainable: what is differentiated.
        features: the shared representation, or none.
        reused: (K,) coefficients of an earlier step: only their weighted sum is differentiated. None: every task is.
    """

    losses: Sequence[Tensor]
    values: Tensor
    weights: Tensor
    scale: float
    trainable: Trainable
    features: Sequence[Tensor]
    reused: Tensor | None

    @property
    def device(self) -> torch.device:
        """Of the parameters, which the process group can reach."""
        return self.trainable.parameters[0].device

    def gradients(self) -> Iterator[list[Tensor | None]]:
        """Gradients of the losses as they are scaled, one task after another, or of their weighted sum alone."""
        if self.reused is None:
            yield from partial_gradients(self.losses, self.trainable.parameters)
        else:
            yield self.trainable.gradient_of_sum(self.losses, self.reused.tolist(), self.weights.tolist())


def micro_batch(
    losses: Sequence[Tensor],
    task_weights: Tensor | Sequence[float] | None,
    scale: float,
    trainable: Trainable,
    features: Tensor | Sequence[Tensor] | None = None,
) -> MicroBatch:
    """Check losses, weights, scale and features.

    Raises:
        ValueError: as :meth:`optimizers.MultiTaskOptimizer.backward`.
    """
    values = loss_values(losses)
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale = {scale} must be finite and > 0: what the losses were multiplied by")
    weights = check_task_weights(task_weights, torch.empty(len(values), len(values)))
    if weights.dim() != 1:
        raise ValueError(f"task_weights must have shape ({len(values)},), got {tuple(weights.shape)}")
    representation = [] if features is None else as_features(features)
    if representation:
        trainable = split_at(representation, losses, trainable)
    return MicroBatch(losses, values / scale, weights, scale, trainable, representation, None)


@dataclass
class GradientSum:
    """Losses and gradients of one micro-batch, or of several added up, in true units.

    Attributes:
        parameters: P, that were differentiated.
        weights: (K,) task weights.
        losses: (K,).
        gradients: one list of P a task, or a single one of the weighted sum where coefficients are reused.
        interrupted: whether an error left a micro-batch half added.
    """

    parameters: Sequence[Tensor]
    weights: Tensor
    losses: Tensor
    gradients: PartialGradients
    interrupted: bool = False

    @classmethod
    def zero(cls, like: MicroBatch) -> "GradientSum":
        """Zero, to which micro-batches like this one can be added."""
        parameters = like.trainable.parameters
        gradients: PartialGradients = [[None] * len(parameters) for _ in (like.losses if like.reused is None else [0])]
        return cls(parameters, like.weights, torch.zeros_like(like.values), gradients)

    @classmethod
    def of(cls, batch: MicroBatch) -> "GradientSum":
        """The gradients of one micro-batch alone, which are not copied."""
        gradients: PartialGradients = []
        for of_task in batch.gradients():
            gradients.append(of_task if batch.scale == 1.0 else weighted_sum([of_task], [1 / batch.scale]))
            del of_task
        return cls(batch.trainable.parameters, batch.weights, batch.values, gradients)

    def check(self, batch: MicroBatch) -> None:
        """Refuse to add what does not fit.

        Raises:
            ValueError: for other tasks, task weights or parameters, or features.
            RuntimeError: if an error interrupted the micro-batch before.
        """
        if self.interrupted:
            raise RuntimeError(
                "an error left the last micro-batch half added: call zero_grad() and start the step anew"
            )
        if batch.features:
            raise ValueError("features cannot follow accumulated micro-batches: each has a representation of its own")
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

    def add(self, batch: MicroBatch) -> None:
        """Add the gradients of a micro-batch that passed :meth:`check`, at the memory of one of its K sets."""
        self.interrupted = True
        sums = iter(self.gradients)
        for of_task in batch.gradients():  # zip would hold on to it
            _add(next(sums), of_task, 1 / batch.scale)
            del of_task
        self.losses = self.losses + batch.values
        self.interrupted = False

    def unreached(self) -> list[int]:
        """Positions of the parameters that no task reaches."""
        return [i for i, column in enumerate(zip(*self.gradients, strict=True)) if not any_reached(column)]


def _add(total: list[Tensor | None], new: list[Tensor | None], factor: float) -> None:
    """Add in place where there is something, and otherwise a tensor that shares no memory with ``new``."""
    known = [(a, b) for a, b in zip(total, new, strict=True) if a is not None and b is not None]
    if known:
        sums, added = zip(*known, strict=True)
        torch._foreach_add_(sums, added, alpha=factor)
    for i, part in enumerate(new):
        if total[i] is None and part is not None:
            total[i] = part * factor
