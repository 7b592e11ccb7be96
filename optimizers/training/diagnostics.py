"""What a training step reports: what it saw and decided, and the memory of its gradients."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepDiagnostics:
    """What the last backward saw and decided; CPU tensors, float64 unless said otherwise.

    Attributes:
        losses: (K,), their mean over processes.
        gramian: (K, K) inner products of the task gradients on the shared parameters, or with respect to ``features``.
        norms: (K,) norms of the task gradients.
        cosines: (K, K) cosines between them; 0 where a gradient is zero.
        coefficients: (K,), the update is Gᵀ·coefficients; None for a :class:`JacobianAggregator`.
        alpha: (K,) on the simplex, or None for aggregators without a dual.
        dual_value: f(α*), or None.
        valid: whether every task improves along stage 1's direction (theory T5), or None.
        averaged: (K, K), the Gramian that was solved for, an average over the steps or of tracked gradients; None
            without ``ema`` and ``track``.
        solved: False where the solver did not reach its tolerance; see ``on_solver_failure``.
        fresh: False where the coefficients were there before the gradients, as ``refresh_every`` reused them or a
            schedule gave them; all but losses and coefficients is then of the last step that computed them, or NaN.
    """

    losses: Tensor
    gramian: Tensor
    norms: Tensor
    cosines: Tensor
    coefficients: Tensor | None
    alpha: Tensor | None = None
    dual_value: float | None = None
    valid: bool | None = None
    averaged: Tensor | None = None
    solved: bool = True
    fresh: bool = True


def fresh_diagnostics(
    losses: Tensor, gramian: Tensor, coefficients: Tensor | None, fields: dict[str, Any]
) -> StepDiagnostics:
    """Of a step that solved; ``fields`` are those of the aggregator."""
    return StepDiagnostics(losses, gramian, *cosine_matrix(gramian), coefficients, **fields)


def stale_diagnostics(losses: Tensor, coefficients: Tensor, last: StepDiagnostics | None) -> StepDiagnostics:
    """Of a step that reused coefficients; NaN where the run was resumed since they were solved for."""
    if last is not None:
        return replace(last, losses=losses, coefficients=coefficients, fresh=False)
    unknown = torch.full((len(coefficients),) * 2, torch.nan, dtype=torch.float64)
    return StepDiagnostics(losses, unknown, unknown[0], unknown, coefficients, fresh=False)


def cosine_matrix(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """(K,) norms and (K, K) cosines of a Gramian; 0 where a gradient is zero."""
    norms = gramian.diagonal().sqrt()
    outer = norms[:, None] * norms
    return norms, torch.where(outer > 0, gramian / torch.where(outer > 0, outer, 1.0), 0.0)


@dataclass(frozen=True)
class GradientMemory:
    """Memory of the task gradients of one step; print it.

    Attributes:
        tasks: K.
        entries: P, of all trainable parameters.
        set_bytes: of one gradient of all trainable parameters.
        peak_bytes: bound on what a step allocates for gradients: K sets, and one for their aggregate.

    Example:
        >>> print(gradient_memory(2, [torch.zeros(1024, 1024)]))
        2 task gradients × 1,048,576 entries: 8.0 MiB, and 4.0 MiB for their aggregate
    """

    tasks: int
    entries: int
    set_bytes: int

    @property
    def peak_bytes(self) -> int:
        return (self.tasks + 1) * self.set_bytes

    def __str__(self) -> str:
        sets, one = (f"{size / 2**20:,.1f} MiB" for size in (self.tasks * self.set_bytes, self.set_bytes))
        return f"{self.tasks} task gradients × {self.entries:,} entries: {sets}, and {one} for their aggregate"


def gradient_memory(tasks: int, parameters: Sequence[Tensor]) -> GradientMemory:
    """Memory of K gradients of the parameters.

    Raises:
        ValueError: for no task.
    """
    if tasks < 1:
        raise ValueError(f"tasks = {tasks} must be >= 1: the number of losses")
    return GradientMemory(
        tasks, sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters)
    )
