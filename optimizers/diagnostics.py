"""What a training step reports."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


class NonFiniteError(ValueError):
    """A loss or a gradient is NaN or infinite. Parameters, gradients and optimizer state are untouched."""


@dataclass(frozen=True)
class StepDiagnostics:
    """What the last backward saw and decided; CPU tensors, float64 unless said otherwise.

    Attributes:
        losses: (K,), their mean over processes.
        gramian: (K, K) inner products of the task gradients on the shared parameters.
        norms: (K,) norms of the task gradients.
        cosines: (K, K) cosines between them; 0 where a gradient is zero.
        coefficients: (K,), the update is Gᵀ·coefficients; None for a :class:`JacobianAggregator`.
        alpha: (K,) on the simplex, or None for aggregators without a dual.
        dual_value: f(α*), or None.
        valid: whether every task improves along stage 1's direction (theory T5), or None.
        fresh: False where ``refresh_every`` reused the coefficients; all but the losses are then those of the
            step that computed them.
    """

    losses: Tensor
    gramian: Tensor
    norms: Tensor
    cosines: Tensor
    coefficients: Tensor | None
    alpha: Tensor | None = None
    dual_value: float | None = None
    valid: bool | None = None
    fresh: bool = True


def fresh_diagnostics(
    losses: Tensor, gramian: Tensor, coefficients: Tensor | None, fields: dict[str, Any]
) -> StepDiagnostics:
    """Of a step that solved; ``fields`` are those of the aggregator."""
    norms = gramian.diagonal().sqrt()
    outer = norms[:, None] * norms
    cosines = torch.where(outer > 0, gramian / torch.where(outer > 0, outer, 1.0), 0.0)
    return StepDiagnostics(losses, gramian, norms, cosines, coefficients, **fields)


def stale_diagnostics(losses: Tensor, coefficients: Tensor, last: StepDiagnostics | None) -> StepDiagnostics:
    """Of a step that reused coefficients; NaN where the run was resumed since they were solved for."""
    if last is not None:
        return replace(last, losses=losses, fresh=False)
    unknown = torch.full((len(coefficients),) * 2, torch.nan, dtype=torch.float64)
    return StepDiagnostics(losses, unknown, unknown[0], unknown, coefficients, fresh=False)
