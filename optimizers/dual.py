"""The conflict-averse dual of CAME-Grad's first stage, solved exactly from the Gramian.

    primal   max_u min_i g_iᵀu   subject to ‖u − μ‖ ≤ r,  r = ρ‖μ‖         (arXiv:2605.22635, eq. 8–9)
    dual     min_{α∈Δ} f(α) = g_αᵀμ + r‖g_α‖,   u* = μ + r g_α/‖g_α‖         (eq. 10)

K = 2 has a closed form; K > 2 is solved by a finite active-set method (:mod:`optimizers.active_set`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from optimizers.active_set import minimize_dual, polish
from optimizers.cone import EPS, quadratic, times
from optimizers.gramian import check_gramian

TOLERANCE = 1e-12
TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class DualSolution:
    """Answer of :func:`solve_dual`; every field is batched over the leading dimensions.

    Attributes:
        alpha: (..., K) float64 minimizer on the simplex. Not unique where gradients are affinely
            dependent.
        value: (...) float64, f(α*), in the units of the Gramian; equals min_i g_iᵀu* and is ≥ 0 iff the
            direction is valid (theory T5).
        residual: (...) float64, the duality gap max(f(α) − min_i g_iᵀu, 0) divided by ‖μ‖·max_i‖g_i‖.
        iterations: (...) int64, linear systems solved; 0 where a closed form applied.
        converged: (...) bool, residual ≤ 1e-12 + 4ε(max_i‖g_i‖/‖g_α‖)² with ε = 2⁻⁵²; the second term
            is the relative error of ‖g_α‖² in a float64 Gramian when g_α is nearly zero.
        multipliers: (..., K) float64 β ≥ 0 with u* = μ + Gᵀβ. Where g_α ≠ 0 it is rα/‖g_α‖; where
            g_α = 0 (Pareto stationary) it is the projection of μ onto {u : g_iᵀu ≥ 0 ∀i}.
    """

    alpha: Tensor
    value: Tensor
    residual: Tensor
    iterations: Tensor
    converged: Tensor
    multipliers: Tensor


def solve_dual(gramian: Tensor, rho: float = 0.5) -> DualSolution:
    r"""Minimize :math:`f(α) = g_α^⊤μ + ρ‖μ‖‖g_α‖` over the simplex (arXiv:2605.22635, eq. 10).

    Args:
        gramian: (..., K, K) float32 or float64, on any device; computed in float64.
        rho: trust-region radius relative to ‖μ‖, in [0, 1).

    Returns:
        :class:`DualSolution`.

    Raises:
        ValueError: for a Gramian that is not square, not finite or has a negative diagonal, or rho
            outside [0, 1).

    Example:
        Two orthogonal unit gradients are treated alike:

        >>> solve_dual(torch.eye(2), rho=0.5).alpha
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    M = check_gramian(gramian)
    check_rho(rho)
    tasks = M.shape[-1]
    return solve_centred(M, M.new_full((tasks,), 1.0 / tasks), rho)


def solve_centred(gramian: Tensor, centre: Tensor, rho: float) -> DualSolution:
    """:func:`solve_dual` with the trust region around Gᵀ``centre`` instead of the mean gradient.

    Args:
        gramian: (..., K, K) float64, checked.
        centre: (K,) or (..., K) coefficients of the trust region's centre.
        rho: in [0, 1), checked.
    """
    batch, tasks = gramian.shape[:-2], gramian.shape[-1]
    M = gramian.reshape(-1, tasks, tasks)
    M = (M + M.transpose(-2, -1)) / 2
    scale = _power_of_two(M.diagonal(dim1=-2, dim2=-1).amax(-1))
    M = M / scale[:, None, None]
    weights = centre.expand(*batch, tasks).reshape(-1, tasks)
    b = times(M, weights)
    squared = (weights * b).sum(-1)
    rounding = 8 * EPS * (weights * M.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()).sum(-1) ** 2
    vanishing = squared <= rounding
    centre_norm = torch.where(vanishing, 0.0, squared).sqrt()
    b = torch.where(vanishing[:, None], 0.0, b)
    radius = rho * centre_norm

    iterations = torch.zeros_like(squared, dtype=torch.int64)
    stationary = vanishing
    if tasks == 1:
        alpha = torch.ones_like(b)
        multipliers = _multipliers(M, alpha, radius)
    elif tasks == 2:
        alpha = polish(M, b, radius, _two_tasks(M, b, radius))
        multipliers = _multipliers(M, alpha, radius)
    else:
        solved = minimize_dual(M, b, radius, 20 * tasks + 100)
        stationary = stationary | solved.stationary
        iterations = solved.iterations
        alpha = torch.where(stationary[:, None], solved.alpha, polish(M, b, radius, solved.alpha))
        multipliers = torch.where(stationary[:, None], solved.multipliers, _multipliers(M, alpha, radius))

    length = quadratic(M, alpha).clamp_min(0).sqrt()
    length = torch.where(stationary, 0.0, length)
    value = torch.where(stationary, 0.0, (alpha * b).sum(-1) + radius * length)
    products = b + times(M, multipliers)
    largest = M.diagonal(dim1=-2, dim2=-1).amax(-1).sqrt()
    size = centre_norm * largest
    gap = (value - products.amin(-1)).clamp_min(0)
    residual = torch.where(size > 0, gap / torch.where(size > 0, size, 1.0), 0.0)
    resolvable = 4 * EPS * (largest / torch.where(length > 0, length, torch.inf)) ** 2
    return DualSolution(
        alpha=alpha.reshape(*batch, tasks),
        value=(value * scale).reshape(batch),
        residual=residual.reshape(batch),
        iterations=iterations.reshape(batch),
        converged=(residual <= TOLERANCE + resolvable).reshape(batch),
        multipliers=multipliers.reshape(*batch, tasks),
    )


def check_rho(rho: float) -> None:
    """Refuse a relative radius outside [0, 1).

    Raises:
        ValueError: naming the value.
    """
    if not 0.0 <= rho < 1.0:
        raise ValueError(f"rho = {rho} must lie in [0, 1): the trust region must not contain 0")


def _two_tasks(M: Tensor, b: Tensor, radius: Tensor) -> Tensor:
    """Closed form for K = 2 (theory.md, section 2); (B, 2)."""
    first, cross, second = M[:, 0, 0], M[:, 0, 1], M[:, 1, 1]
    A = (first - cross) + (second - cross)
    B = cross - second
    q = b[:, 0] - b[:, 1]
    distinct = A > 0
    A = torch.where(distinct, A, 1.0)
    m2 = (first * second - cross**2).clamp_min(0) / A**2
    slack = radius**2 * A - q**2
    interior = slack > 0
    shift = -q * (m2 / torch.where(interior, slack, 1.0)).sqrt()
    alpha = torch.where(interior, (shift - B / A).clamp(0.0, 1.0), (q < 0).to(M.dtype))
    # Vertices are decided by products, which stay accurate where A cancels (nearly equal gradients).
    ascent_first = q + radius * (first - cross) / first.clamp_min(TINY).sqrt()
    ascent_second = q + radius * (cross - second) / second.clamp_min(TINY).sqrt()
    alpha = torch.where(distinct, alpha, 0.5)
    alpha = torch.where(ascent_first < 0, 1.0, torch.where(ascent_second > 0, 0.0, alpha))
    return torch.stack([alpha, 1.0 - alpha], -1)


def _multipliers(M: Tensor, alpha: Tensor, radius: Tensor) -> Tensor:
    length = quadratic(M, alpha).clamp_min(0).sqrt()
    return alpha * (radius / torch.where(length > 0, length, torch.inf))[:, None]


def _power_of_two(x: Tensor) -> Tensor:
    """The power of two just above |x|, 1 for 0: scaling by it is exact."""
    exponent = torch.frexp(x.abs()).exponent
    return torch.where(x == 0, 1.0, torch.ldexp(torch.ones_like(x), exponent))
