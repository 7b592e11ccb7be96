"""The conflict-averse dual for a batch of problems in torch, on any device; see :mod:`optimizers.dual.solve`.

K = 2 has a closed form, K > 2 is solved by :mod:`optimizers.dual.active_set`. On a CPU :mod:`optimizers.kernels.dual`
is faster, and leaves to this what it cannot solve.
"""

import torch
from torch import Tensor

from optimizers.dual.active_set import minimize_dual, polish
from optimizers.kernels.floats import EPS, ROUNDING, TINY, iteration_limit
from optimizers.linalg import power_of_two, quadratic, times


def solve_batch(gramian: Tensor, centre: Tensor, rho: float) -> Tensor:
    """Solve B problems.

    Args:
        gramian: (B, K, K) float64, checked.
        centre: (1 or B, K) float64 coefficients of the trust region's centre.
        rho: in [0, 1), checked.

    Returns:
        (B, :func:`optimizers.kernels.columns.dual_width`) float64.

    Example:
        >>> from optimizers.kernels.columns import VALUE
        >>> centre = torch.full((1, 2), 0.5, dtype=torch.float64)
        >>> solve_batch(torch.eye(2, dtype=torch.float64)[None], centre, 0.5)[:, VALUE]
        tensor([0.7500], dtype=torch.float64)
    """
    tasks = gramian.shape[-1]
    M = (gramian + gramian.mT) / 2
    scale = power_of_two(M.diagonal(dim1=-2, dim2=-1).amax(-1))
    M = M / scale[:, None, None]
    weights = centre.expand(len(M), tasks)
    b = times(M, weights)
    squared = (weights * b).sum(-1)
    rounding = ROUNDING * (weights * M.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()).sum(-1) ** 2
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
        alpha = polish(M, b, radius, two_tasks(M, b, radius))
        multipliers = _multipliers(M, alpha, radius)
    else:
        solved = minimize_dual(M, b, radius, iteration_limit(tasks))
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
    return dual_rows(value * scale, residual, iterations.double(), resolvable, alpha, multipliers)


def dual_rows(
    value: Tensor, residual: Tensor, iterations: Tensor, resolvable: Tensor, alpha: Tensor, multipliers: Tensor
) -> Tensor:
    """Rows in the order of :mod:`optimizers.kernels.columns`, from four (B,) and two (B, K) tensors."""
    return torch.cat([torch.stack([value, residual, iterations, resolvable], -1), alpha, multipliers], -1)


def two_tasks(M: Tensor, b: Tensor, radius: Tensor) -> Tensor:
    """The minimizers for K = 2 in closed form (book/dual.md, "Two tasks").

    Args:
        M: (B, 2, 2) float64, of order one.
        b: (B, 2) float64, products of the gradients with the trust region's centre.
        radius: (B,) float64.

    Returns:
        (B, 2) float64 on the simplex.

    Example:
        >>> M = torch.eye(2, dtype=torch.float64)[None]
        >>> two_tasks(M, M.mean(-1), torch.tensor([0.25]).double())
        tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
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
