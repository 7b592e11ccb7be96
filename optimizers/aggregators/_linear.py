"""Linear scalarization: the weighted sum of losses, the baseline that everybody uses."""

from collections.abc import Sequence

import torch
from torch import Tensor

from optimizers.gradients.checks import check_gramian, check_task_weights


def linear(gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None) -> Tensor:
    r"""Coefficients of linear scalarization, :math:`F(G) = G^⊤ω = g_J`.

    * Weights: the coefficients themselves, so g_J is the sum of the ω_i g_i.
    * Descends the weighted loss; may harm single tasks (theory T2, book/drift_deviation.md). Zero exactly where
      g_J = 0, which is Pareto stationary; it moves on at every other Pareto-stationary point.
    * Nothing happens at zero, duplicate or opposite gradients: duplicates count twice, opposite ones cancel.
    * Does not depend on the Gramian: F is linear in G. Cost O(K).

    Args:
        gramian: (..., K, K) float32 or float64; only its shape and validity matter.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.

    Returns:
        (..., K) float64, the task weights.

    Raises:
        ValueError: for a matrix that is no Gramian, or bad weights.

    Example:
        >>> linear(torch.eye(2), [1.0, 4.0])
        tensor([1., 4.], dtype=torch.float64)
    """
    gramian = check_gramian(gramian)
    weights = check_task_weights(task_weights, gramian)
    batch = torch.broadcast_shapes(gramian.shape[:-2], weights.shape[:-1])
    return weights.expand(*batch, gramian.shape[-1]).clone()
