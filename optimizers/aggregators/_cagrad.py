"""CAGrad: conflict-averse gradient descent (Liu, Liu, Jin, Stone, Liu, NeurIPS 2021, arXiv:2110.14048).

Its subproblem is stage 1 of CAME-Grad: the same ball around the mean gradient, the same max–min objective, with
c in place of ρ. CAME-Grad adds the magnitude of stage 2 and the fusion of stage 3 to it.
"""

from collections.abc import Sequence

from torch import Tensor

from optimizers.aggregators._came_grad import came_grad_stages
from optimizers.aggregators.base import scaled


def cagrad(gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None, *, c: float = 0.5) -> Tensor:
    r"""Coefficients of :math:`\arg\max_u \min_i ω_ig_i^⊤u` subject to :math:`‖u - g_J/K‖ ≤ c‖g_J/K‖`.

    Algorithm 1 of Liu et al.; its dual over the simplex is solved exactly, as by :func:`optimizers.solve_dual`.

    * Weights: the method sees ω_i g_i. A task of weight zero takes no part, but K still counts it.
    * c < 1, as convergence to a stationary point of the weighted loss requires; from 1 on 0 would be feasible.
    * The weighted loss descends: :math:`g_J^⊤u ≥ (1-c)‖g_J‖²/K`. Tasks may be harmed: none is exactly where the
      maximum is ≥ 0 (theory T5, book/validity.md), as for every c where the mean harms none.
    * u = 0 where g_J = 0 and nowhere else. At other Pareto-stationary points, where the dual's g_α = 0, the maximum is
      attained by the point of the ball nearest its centre that harms no task.
    * Zero, duplicate and opposite gradients and singular Gramians are no special case: u is unique, its coefficients
      are one choice where gradients are linearly dependent.
    * The coefficients do not change when all gradients are scaled: F is homogeneous of degree one.
    * Cost: closed form for K = 2; otherwise about K linear systems of size K + 1.

    Args:
        gramian: (..., K, K) float32 or float64; computed in float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.
        c: relative radius in [0, 1).

    Returns:
        (..., K) float64, for the direction in the units of the mean weighted gradient.

    Raises:
        ValueError: for a matrix that is no Gramian, bad weights, or c outside [0, 1).

    Warns:
        SolverWarning: where the dual's gap is above its tolerance.

    Example:
        >>> import torch
        >>> cagrad(torch.eye(2), c=0.5)
        tensor([0.7500, 0.7500], dtype=torch.float64)
    """
    if not 0.0 <= c < 1.0:
        raise ValueError(f"c = {c} must lie in [0, 1): the ball around the mean gradient must not contain 0")
    M, weights, unit = scaled(gramian, task_weights)
    return came_grad_stages(M, weights, rho=c, center="weighted").rectified * unit
