"""The three stages of CAME-Grad for a batch of problems in torch, on any device; see :func:`optimizers.came_grad`."""

import torch
from torch import Tensor

from optimizers.dual.batched import solve_batch
from optimizers.kernels.columns import ALPHA, MULTIPLIERS, VALUE, start
from optimizers.kernels.floats import ROUNDING, UNSIGNED
from optimizers.linalg import quadratic, times


def solve_stages(
    M: Tensor, weights: Tensor, rho: float, kappa: float, nu: float, weighted: bool, adapted: bool
) -> Tensor:
    """Solve B problems.

    Args:
        M: (B, K, K) float64, checked.
        weights: (B, K) float64, checked.
        rho, kappa, nu: as for :func:`optimizers.came_grad`.
        weighted: whether the centre is the weighted one (theory T7).
        adapted: whether fusion is adaptive (theory T9).

    Returns:
        (B, :func:`optimizers.kernels.columns.stages_width`) float64.

    Example:
        >>> from optimizers.kernels.columns import COEFFICIENTS
        >>> eye, ones = torch.eye(2, dtype=torch.float64)[None], torch.ones(1, 2, dtype=torch.float64)
        >>> first = start(COEFFICIENTS, 2)
        >>> solve_stages(eye, ones, 0.5, 1.0, 1.0, False, False)[0, first : first + 2]
        tensor([1., 1.], dtype=torch.float64)
    """
    tasks = M.shape[-1]
    mean = torch.full_like(weights, 1.0 / tasks)
    dual = _solve_weighted(M, weights, rho) if weighted else solve_batch(M, mean, rho)
    rectified = mean + dual[:, start(MULTIPLIERS, tasks) :]
    rectified = weights * rectified if weighted else rectified
    centre = weights / tasks if weighted else mean
    rectified_norm = _norm(M, rectified)
    vanishing = (_norm(M, centre) <= _rounding(M, centre)) | (rectified_norm == 0)
    rectified = torch.where(vanishing[..., None], 0.0, rectified)
    speed = kappa * _norm(M, weights) / torch.where(vanishing, 1.0, rectified_norm)
    enhanced = speed[..., None] * rectified
    joint = kappa * weights
    used = torch.full_like(speed, nu)
    if adapted:
        used = adaptive_fusion(times(M, enhanced), times(M, joint), nu)
    coefficients = (1 - used)[..., None] * enhanced + used[..., None] * joint

    valid = dual[:, VALUE] >= -UNSIGNED * M.diagonal(dim1=-2, dim2=-1).amax(-1)
    return torch.cat([dual, rectified, enhanced, coefficients, used[:, None], valid.to(M)[:, None]], -1)


def _solve_weighted(M: Tensor, weights: Tensor, rho: float) -> Tensor:
    """Stage 1 on ω_i g_i (T7). A task of weight zero takes no part: a copy of the heaviest one, which
    changes neither the maximum nor its direction, stands in for it."""
    tasks = M.shape[-1]
    heaviest = weights.argmax(-1, keepdim=True)
    index = torch.arange(M.shape[-1], device=M.device).expand_as(weights)
    index = torch.where(weights > 0, index, heaviest)
    chosen = weights.gather(-1, index)
    rows = M.gather(-2, index[..., :, None].expand_as(M))
    both = rows.gather(-1, index[..., None, :].expand_as(M))
    centre = (weights > 0).to(M.dtype) / M.shape[-1]
    solved = solve_batch(both * chosen[..., :, None] * chosen[..., None, :], centre, rho)

    def scatter(x: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter_add(-1, index, x)

    alpha, multipliers = start(ALPHA, tasks), start(MULTIPLIERS, tasks)
    both_vectors = scatter(solved[:, alpha:multipliers]), scatter(solved[:, multipliers:])
    return torch.cat([solved[:, :alpha], *both_vectors], -1)


def adaptive_fusion(enhanced: Tensor, joint: Tensor, limit: float) -> Tensor:
    """The largest ν ≤ limit that harms no task, (1−ν)e_i + νj_i ≥ 0 (theory T9); ``limit`` where there is none.

    Args:
        enhanced: (..., K) e_i = g_iᵀu_en.
        joint: (..., K) j_i = κg_iᵀg_J.
        limit: in [0, 1].

    Returns:
        (...) of the same dtype.

    Example:
        >>> adaptive_fusion(torch.tensor([1.0, 1.0]), torch.tensor([1.0, -3.0]), 0.5)
        tensor(0.2500)
    """
    size = enhanced.abs() + joint.abs()
    enhanced = torch.where(enhanced.abs() <= UNSIGNED * size, 0.0, enhanced)
    slope = joint - enhanced
    root = -enhanced / torch.where(slope == 0, 1.0, slope)
    upper = torch.where(slope < 0, root, torch.inf).amin(-1).clamp_max(limit)
    lower = torch.where(slope > 0, root, -torch.inf).amax(-1).clamp_min(0.0)
    flat_harm = ((slope == 0) & (enhanced < 0)).any(-1)
    exists = (lower <= upper) & (upper >= 0) & ~flat_harm
    return torch.where(exists, upper, limit)


def _norm(M: Tensor, coefficients: Tensor) -> Tensor:
    return quadratic(M, coefficients).clamp_min(0).sqrt()


def _rounding(M: Tensor, centre: Tensor) -> Tensor:
    """The largest ‖Gᵀcentre‖ that the Gramian cannot tell from zero, as in :mod:`optimizers.dual.batched`."""
    norms = M.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    return ROUNDING**0.5 * (centre * norms).sum(-1)
