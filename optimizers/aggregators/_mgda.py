"""MGDA: the minimum-norm point of the convex hull of the task gradients (Désidéri 2012; Sener and Koltun 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from optimizers.aggregators.base import scaled
from optimizers.dual.active_set import minimize_dual
from optimizers.errors import report_unsolved
from optimizers.kernels.floats import TOLERANCE, iteration_limit
from optimizers.linalg import quadratic, times


def mgda(gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None) -> Tensor:
    r"""Coefficients of :math:`\arg\min_{α∈Δ} ‖\sum_i α_iω_ig_i‖`, a direction that harms no task.

    Désidéri (Comptes Rendus Mathématique 350, 2012); Sener and Koltun (NeurIPS 2018, arXiv:1810.04650), equation 3,
    without their upper bound. They run Frank–Wolfe; this is the active-set method of the conflict-averse dual at b = 0,
    r = 1, exact up to rounding, with the optimality :math:`g_i^⊤v ≥ ‖v‖²` of the answer v checked.

    * Weights: the method sees ω_i g_i. *Short* gradients attract the minimum: a larger ω_i makes task i count less.
      A task of weight zero attracts the minimum to 0, as a vanishing gradient does.
    * No assumption on G. Every task gains at least ‖v‖²; v = 0 exactly at Pareto-stationary points of the tasks with
      ω_i > 0, to the 1e-8·max‖ω_ig_i‖ that a float64 Gramian resolves.
    * Where gradients are affinely dependent (duplicates, K > d + 1) v is unique, α is not: one of its minimizers, of
      few tasks, is returned. It may change with the order of the tasks.
    * The coefficients do not change when all gradients are scaled: F is homogeneous of degree one.
    * Cost: in practice about K linear systems of size K + 1; no more than 20K + 100.

    Args:
        gramian: (..., K, K) float32 or float64; computed in float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.

    Returns:
        (..., K) float64, α_iω_i.

    Raises:
        ValueError: for a matrix that is no Gramian, or bad weights.

    Warns:
        SolverWarning: where :math:`‖v‖² - \min_i g_i^⊤v` is above 1e-12 times the largest squared gradient.

    Example:
        >>> mgda(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """
    problem = scaled(gramian, task_weights)
    M = problem.weighted_gramian()
    batch, tasks = M.shape[:-2], M.shape[-1]
    M = M.reshape(-1, tasks, tasks)
    largest = M.diagonal(dim1=-2, dim2=-1).amax(-1)
    alpha = minimize_dual(M, torch.zeros_like(M[..., 0]), torch.ones_like(largest), iteration_limit(tasks)).alpha
    gap = (quadratic(M, alpha) - times(M, alpha).amin(-1)).clamp_min(0)
    failed = gap > TOLERANCE * largest
    if failed.any():
        worst = (gap / torch.where(largest > 0, largest, 1.0)).max().item()
        report_unsolved(
            f"the minimum-norm point of {int(failed.sum())} problem(s) has an optimality gap of up to {worst:.1e} "
            "(relative to the largest squared gradient); check the Gramian for entries that are not inner products",
            stacklevel=2,
        )
    return alpha.reshape(*batch, tasks) * problem.weights * problem.unit
