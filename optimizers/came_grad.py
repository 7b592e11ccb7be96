"""CAME-Grad: conflict-averse direction, magnitude enhancement, fusion (arXiv:2605.22635, eq. 8–14).

The three stages only need the K×K Gramian: the update is Gᵀc with coefficients c computed here. The
options that the paper does not have are ``center="weighted"`` (theory T7) and ``fusion="adaptive"``
(theory T9).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optimizers.cone import EPS, quadratic, times
from optimizers.dual import DualSolution, check_rho, solve_centred
from optimizers.gramian import check_gradients, check_gramian, check_task_weights, gramian
from optimizers.solver_failure import report_unsolved

Center = Literal["mean", "weighted"]
Fusion = Literal["fixed", "adaptive"]


@dataclass(frozen=True)
class CAMEGradCoefficients:
    """The stages of CAME-Grad as combinations of the task gradients; all (..., K) or (...) float64.

    Attributes:
        rectified: (..., K), u* = Gᵀ·rectified.
        enhanced: (..., K), u_en = Gᵀ·enhanced.
        coefficients: (..., K), F = Gᵀ·coefficients.
        fusion: (...), the ν that was used.
        dual: the solved dual; with ``center="weighted"`` that of the gradients ω_i g_i.
        valid: (...) bool, the T5 certificate: every task improves along u*, that is f(α*) ≥ 0.
    """

    rectified: Tensor
    enhanced: Tensor
    coefficients: Tensor
    fusion: Tensor
    dual: DualSolution
    valid: Tensor


@dataclass(frozen=True)
class CAMEGradResult:
    """The update of CAME-Grad and the vectors it is made of.

    Attributes:
        update: (..., d), F(G), to be subtracted times the learning rate.
        rectified: (..., d), u* of stage 1.
        enhanced: (..., d), u_en of stage 2, with ‖u_en‖ = κ‖g_J‖.
        joint: (..., d), g_J = Gᵀω.
        mean: (..., d), μ = Gᵀ1/K.
        alpha: (..., K), minimizer of the dual on the simplex.
        coefficients: (..., K), c with F = Gᵀc.
        dual_value: (...) float64, f(α*).
        valid: (...) bool, min_i g_iᵀu* ≥ 0 (theory T5).
        dual: status of the solver.

    Vectors, alpha and coefficients have the dtype of the gradients.
    """

    update: Tensor
    rectified: Tensor
    enhanced: Tensor
    joint: Tensor
    mean: Tensor
    alpha: Tensor
    coefficients: Tensor
    dual_value: Tensor
    valid: Tensor
    dual: DualSolution


def came_grad(
    gradients: Tensor,
    task_weights: Tensor | Sequence[float] | None = None,
    *,
    rho: float = 0.5,
    kappa: float = 1.5,
    nu: float = 0.2,
    center: Center = "mean",
    fusion: Fusion = "fixed",
) -> CAMEGradResult:
    r"""CAME-Grad's update for gradients ``G`` (arXiv:2605.22635, eq. 8–14).

    .. math::
        u^* &= \arg\max_u \min_i g_i^⊤u \text{ s.t. } ‖u - μ‖ ≤ ρ‖μ‖, \\
        u_{en} &= κ‖g_J‖\,u^*/‖u^*‖, \\
        F(G) &= (1-ν)\,u_{en} + νκ\,g_J.

    The ε that the paper adds to ‖u*‖ is left out, so that F is homogeneous at every scale; where μ = 0,
    u* = u_en = 0 and F = νκ g_J.

    Args:
        gradients: (..., K, d) float32 or float64, one task gradient a row, on any device.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.
        rho: relative trust-region radius ρ in [0, 1).
        kappa: magnitude enhancement κ ≥ 1.
        nu: share ν in [0, 1] of the joint gradient; the upper bound of ν with ``fusion="adaptive"``.
        center: "mean" as printed; "weighted" runs stage 1 on ω_i g_i, so that F always descends the
            weighted loss (theory T7).
        fusion: "fixed" as printed; "adaptive" takes the largest ν ≤ ``nu`` for which no task gets worse,
            and ``nu`` where there is none (theory T9).

    Returns:
        :class:`CAMEGradResult`.

    Raises:
        ValueError: for wrong shapes or dtypes, non-finite gradients (naming the task), parameters or
            weights outside their domain.

    Example:
        Two conflicting tasks; linear scalarization harms the second, CAME-Grad's first stage neither:

        >>> G = torch.tensor([[1.0, 0.0], [-0.6, 0.4]])
        >>> result = came_grad(G, [1.0, 1.0])
        >>> G @ result.joint
        tensor([ 0.4000, -0.0800])
        >>> G @ result.rectified
        tensor([0.0823, 0.0620])
        >>> result.valid
        tensor(True)
    """
    check_gradients(gradients)
    if gradients.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"gradients must be float32 or float64, got {gradients.dtype}")
    scale = _safe_scale(gradients)
    scaled = gradients if scale is None else gradients / scale[..., None, None]
    stages = came_grad_stages(gramian(scaled), task_weights, rho=rho, kappa=kappa, nu=nu, center=center, fusion=fusion)
    weights = check_task_weights(task_weights, stages.coefficients[..., None, :])
    tasks = gradients.shape[-2]

    def combine(coefficients: Tensor) -> Tensor:
        coefficients = coefficients.expand(stages.coefficients.shape).to(gradients.dtype)
        return (coefficients[..., None, :] @ gradients)[..., 0, :]

    value = stages.dual.value if scale is None else stages.dual.value * scale.double() ** 2
    return CAMEGradResult(
        update=combine(stages.coefficients),
        rectified=combine(stages.rectified),
        enhanced=combine(stages.enhanced),
        joint=combine(weights),
        mean=combine(weights.new_full((tasks,), 1.0 / tasks)),
        alpha=stages.dual.alpha.to(gradients.dtype),
        coefficients=stages.coefficients.to(gradients.dtype),
        dual_value=value,
        valid=stages.valid,
        dual=stages.dual,
    )


def came_grad_coefficients(
    gramian: Tensor,
    task_weights: Tensor | Sequence[float] | None = None,
    *,
    rho: float = 0.5,
    kappa: float = 1.5,
    nu: float = 0.2,
    center: Center = "mean",
    fusion: Fusion = "fixed",
) -> Tensor:
    """Coefficients c of CAME-Grad's update Gᵀc, from the Gramian alone: CAME-Grad as an aggregator.

    Args:
        gramian: (..., K, K) float32 or float64, on any device; computed in float64.
        task_weights, rho, kappa, nu, center, fusion: as in :func:`came_grad`.

    Returns:
        (..., K) float64.

    Raises:
        ValueError: as :func:`came_grad`.

    Example:
        >>> came_grad_coefficients(torch.eye(2), nu=1.0, kappa=1.0)
        tensor([1., 1.], dtype=torch.float64)
    """
    return came_grad_stages(
        gramian, task_weights, rho=rho, kappa=kappa, nu=nu, center=center, fusion=fusion
    ).coefficients


def came_grad_stages(
    gramian: Tensor,
    task_weights: Tensor | Sequence[float] | None = None,
    *,
    rho: float = 0.5,
    kappa: float = 1.5,
    nu: float = 0.2,
    center: Center = "mean",
    fusion: Fusion = "fixed",
) -> CAMEGradCoefficients:
    """All three stages of CAME-Grad from the Gramian; arguments as in :func:`came_grad_coefficients`.

    Raises:
        ValueError: as :func:`came_grad`.

    Example:
        >>> came_grad_stages(torch.eye(2), [1.0, 1.0]).rectified
        tensor([0.7500, 0.7500], dtype=torch.float64)
    """
    check_options(rho=rho, kappa=kappa, nu=nu, center=center, fusion=fusion)
    M = check_gramian(gramian)
    weights = check_task_weights(task_weights, M)
    tasks = M.shape[-1]
    batch = torch.broadcast_shapes(M.shape[:-2], weights.shape[:-1])
    M = M.expand(*batch, tasks, tasks)
    weights = weights.expand(*batch, tasks)

    mean = torch.full_like(weights, 1.0 / tasks)
    if center == "mean":
        dual = solve_centred(M, mean, rho)
        rectified = mean + dual.multipliers
    else:
        dual = _solve_weighted(M, weights, rho)
        rectified = weights * (mean + dual.multipliers)
    if not dual.converged.all():
        worst = dual.residual[~dual.converged].max().item()
        report_unsolved(
            f"the dual of {int((~dual.converged).sum())} problem(s) has a duality gap of up to "
            f"{worst:.1e} (relative); check the Gramian for entries that are not inner products",
            stacklevel=3,
        )

    centre = mean if center == "mean" else weights / tasks
    rectified_norm = _norm(M, rectified)
    vanishing = (_norm(M, centre) <= _rounding(M, centre)) | (rectified_norm == 0)
    rectified = torch.where(vanishing[..., None], 0.0, rectified)
    speed = kappa * _norm(M, weights) / torch.where(vanishing, 1.0, rectified_norm)
    enhanced = speed[..., None] * rectified
    joint = kappa * weights
    used = torch.full_like(speed, nu)
    if fusion == "adaptive":
        used = _adaptive_fusion(times(M, enhanced), times(M, joint), nu)
    coefficients = (1 - used)[..., None] * enhanced + used[..., None] * joint

    diagonal = M.diagonal(dim1=-2, dim2=-1)
    floor = 16 * EPS * diagonal.amax(-1)
    return CAMEGradCoefficients(rectified, enhanced, coefficients, used, dual, valid=dual.value >= -floor)


def check_options(*, rho: float, kappa: float, nu: float, center: str, fusion: str) -> None:
    """Refuse hyperparameters outside their domain.

    Raises:
        ValueError: naming the value and the domain.
    """
    check_rho(rho)
    if not 1.0 <= kappa < float("inf"):
        raise ValueError(f"kappa = {kappa} must be finite and >= 1: it enhances the magnitude")
    if not 0.0 <= nu <= 1.0:
        raise ValueError(f"nu = {nu} must lie in [0, 1]: it is the share of the joint gradient")
    if center not in ("mean", "weighted"):
        raise ValueError(f"center = {center!r} must be 'mean' or 'weighted'")
    if fusion not in ("fixed", "adaptive"):
        raise ValueError(f"fusion = {fusion!r} must be 'fixed' or 'adaptive'")


def _solve_weighted(M: Tensor, weights: Tensor, rho: float) -> DualSolution:
    """Stage 1 on ω_i g_i (T7). A task of weight zero takes no part: a copy of the heaviest one, which
    changes neither the maximum nor its direction, stands in for it."""
    heaviest = weights.argmax(-1, keepdim=True)
    index = torch.arange(M.shape[-1], device=M.device).expand_as(weights)
    index = torch.where(weights > 0, index, heaviest)
    chosen = weights.gather(-1, index)
    rows = M.gather(-2, index[..., :, None].expand_as(M))
    both = rows.gather(-1, index[..., None, :].expand_as(M))
    centre = (weights > 0).to(M.dtype) / M.shape[-1]
    solved = solve_centred(both * chosen[..., :, None] * chosen[..., None, :], centre, rho)

    def scatter(x: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter_add(-1, index, x)

    return DualSolution(
        alpha=scatter(solved.alpha),
        value=solved.value,
        residual=solved.residual,
        iterations=solved.iterations,
        converged=solved.converged,
        multipliers=scatter(solved.multipliers),
    )


def _adaptive_fusion(enhanced: Tensor, joint: Tensor, limit: float) -> Tensor:
    """max{ν ≤ limit : (1−ν)·enhanced_i + ν·joint_i ≥ 0 ∀i} (T9); ``limit`` where there is none."""
    size = enhanced.abs() + joint.abs()
    enhanced = torch.where(enhanced.abs() <= 16 * EPS * size, 0.0, enhanced)
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
    """The largest ‖Gᵀcentre‖ that the Gramian cannot tell from zero, as in :func:`solve_centred`."""
    norms = M.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    return (8 * EPS) ** 0.5 * (centre * norms).sum(-1)


def _safe_scale(gradients: Tensor) -> Tensor | None:
    """A power of two near max|G| for float64, whose squares could overflow; float32 needs none."""
    if gradients.dtype == torch.float32 or gradients.shape[-1] == 0:
        return None
    largest = gradients.abs().amax((-2, -1))
    exponent = torch.frexp(torch.where(largest.isfinite(), largest, 1.0)).exponent
    return torch.where(largest == 0, 1.0, torch.ldexp(torch.ones_like(largest), exponent))
