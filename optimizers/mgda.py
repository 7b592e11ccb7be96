"""MGDA: the minimum-norm point of the convex hull of the task gradients (Désidéri 2012; Sener and Koltun 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from optimizers.active_set import minimize_dual
from optimizers.gramian import check_gramian, check_task_weights


def mgda(gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None) -> Tensor:
    r"""Coefficients of :math:`\arg\min_{α∈Δ} ‖\sum_i α_iω_ig_i‖`, a direction that harms no task.

    The active-set method of the conflict-averse dual at b = 0, r = 1, hence exact up to rounding.

    Args:
        gramian: (..., K, K) float32 or float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default. A task of weight zero attracts
            the minimum to 0, as a vanishing gradient does.

    Returns:
        (..., K) float64, α_iω_i.

    Raises:
        ValueError: for a matrix that is no Gramian, or bad weights.

    Example:
        >>> mgda(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """
    M = check_gramian(gramian)
    weights = check_task_weights(task_weights, M)
    tasks = M.shape[-1]
    batch = torch.broadcast_shapes(M.shape[:-2], weights.shape[:-1])
    weights = weights.expand(*batch, tasks).reshape(-1, tasks)
    M = M.expand(*batch, tasks, tasks).reshape(-1, tasks, tasks) * weights[:, :, None] * weights[:, None, :]
    largest = M.diagonal(dim1=-2, dim2=-1).amax(-1)
    M = M / torch.where(largest > 0, largest, 1.0)[:, None, None]
    solved = minimize_dual(M, torch.zeros_like(weights), torch.ones_like(largest), 20 * tasks + 100)
    return (solved.alpha * weights).reshape(*batch, tasks)
