"""IMTL-G: the direction with equal projections on all task gradients (Liu et al., ICLR 2021, *Towards Impartial
Multi-Task Learning*)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from optimizers.aggregators.base import unit_gramian
from optimizers.kernels.floats import EPS, RANK
from optimizers.linalg import power_of_two, times


def imtl_g(gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None) -> Tensor:
    r"""Coefficients of the :math:`u = \sum_i α_iω_ig_i,\ \sum_i α_i = 1`, with equal :math:`u^⊤g_i/‖g_i‖`.

    Liu et al. solve :math:`u^⊤(u_1 - u_i) = 0,\ i > 1` with the unit gradients :math:`u_i`, for
    :math:`(α_2, …, α_K) = g_1U^⊤(DU^⊤)^{-1}`. The same from the matrix C of their cosines, through the point of least
    norm in their *affine* hull:

    .. math:: β = C^{-1}1/(1^⊤C^{-1}1), \qquad α_i = \frac{β_i/(ω_i‖g_i‖)}{\sum_j β_j/(ω_j‖g_j‖)},

    because :math:`β` is the only combination whose product with every :math:`u_i` is the same.

    * Weights: the method sees ω_i g_i. Directions of gradients, hence of u, do not depend on ω; the condition
      Σα = 1 makes its length do.
    * Assumes linearly independent gradients. Where they are not, β is the combination of least ‖β‖, which is the limit
      for two tasks whose gradients become parallel; duplicates share.
    * No such direction but 0 exists where 0 lies in the affine hull of the unit gradients: coefficients 0. That is
      so at every Pareto-stationary point, for two tasks where they are opposite; for K > 2 it can be so at others.
    * α may be negative, and where Σβ_j/(ω_j‖g_j‖) < 0 (K > 2) the condition Σα = 1 turns u against *all* tasks, as
      in the paper; where that sum is 0 to rounding there is no solution: coefficients 0.
    * Tasks with a zero gradient or weight zero have no direction: they take no part, their coefficient is 0.
    * The coefficients do not change when all gradients are scaled: F is homogeneous of degree one.
    * Cost: one eigendecomposition, O(K³).

    Args:
        gramian: (..., K, K) float32 or float64; computed in float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.

    Returns:
        (..., K) float64, α_iω_i.

    Raises:
        ValueError: for a matrix that is no Gramian, or bad weights.

    Example:
        The longer gradient counts less; norms 5 and 2 give (1/5, 1/2) up to their sum:

        >>> imtl_g(torch.tensor([[25.0, 8.0], [8.0, 4.0]]))
        tensor([0.2857, 0.7143], dtype=torch.float64)
    """
    cosines, norms, weights, present = unit_gramian(gramian, task_weights)
    norms = norms / power_of_two(norms.amax(-1, keepdim=True))
    weighted = norms * (weights / power_of_two(weights.amax(-1, keepdim=True)))
    present = present & (weighted > 0)
    ones = present.to(cosines.dtype)

    eigenvalues, vectors = torch.linalg.eigh(cosines)
    resolved = eigenvalues > RANK * cosines.shape[-1] * eigenvalues[..., -1:]
    components = times(vectors.mT, ones)
    opposed = torch.where(resolved, 0.0, components**2).sum(-1) > EPS**0.5
    beta = times(vectors, torch.where(resolved, components / torch.where(resolved, eigenvalues, 1.0), 0.0)) * ones

    smallest = torch.where(present, weighted, torch.inf).amin(-1, keepdim=True)
    shares = torch.where(present, beta * (smallest / torch.where(present, weighted, 1.0)), 0.0)
    total = shares.sum(-1)
    exists = ~opposed & (total.abs() > RANK * cosines.shape[-1] * shares.abs().sum(-1))
    divisor = torch.where(exists, total, 1.0)[..., None] * torch.where(present, weighted, 1.0)
    return torch.where(exists[..., None] & present, beta * smallest / divisor * weights, 0.0)
