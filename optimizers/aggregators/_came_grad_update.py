"""CAME-Grad: conflict-averse direction, magnitude enhancement, fusion (arXiv:2605.22635, eq. 8–14).

The three stages only need the K×K Gramian: the update is Gᵀc with coefficients c
(:mod:`optimizers.aggregators._came_grad`). The options that the paper does not have are ``center="weighted"`` (theory
T7) and ``fusion="adaptive"`` (theory T9).
"""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from optimizers.aggregators._came_grad import DEFAULTS, CAMEGradCoefficients, Center, Fusion, came_grad_stages
from optimizers.dual.solve import DualSolution
from optimizers.gradients._gramian import LONG, gramian
from optimizers.gradients._weighted_sum import weighted_sum
from optimizers.gradients.checks import check_gradients, check_task_weights
from optimizers.kernels.floats import LARGE, SMALL
from optimizers.linalg import power_of_two


class CAMEGradResult:
    """The update of CAME-Grad, and the vectors it is made of, which are combined when they are asked for.

    Vectors, alpha and coefficients have the dtype of the gradients.

    Raises:
        RuntimeError: for a vector asked for after the gradients were changed in place.
    """

    def __init__(
        self,
        gradients: Tensor,
        stages: CAMEGradCoefficients,
        task_weights: Tensor | Sequence[float] | None,
        unit: Tensor | None,
    ) -> None:
        self._gradients, self._stages, self._unit = gradients, stages, unit
        self._weights = task_weights.clone() if isinstance(task_weights, Tensor) else copy(task_weights)
        self._version = _version(gradients)
        self.coefficients: Tensor = stages.coefficients.to(gradients.dtype)
        """(..., K), c with F = Gᵀc."""
        self.update: Tensor = self._combine(self.coefficients)
        """(..., d), F(G), to be subtracted times the learning rate."""

    @property
    def rectified(self) -> Tensor:
        """(..., d), u* of stage 1."""
        return self._combine(self._stages.rectified)

    @property
    def enhanced(self) -> Tensor:
        """(..., d), u_en of stage 2, with ‖u_en‖ = κ‖g_J‖."""
        return self._combine(self._stages.enhanced)

    @property
    def joint(self) -> Tensor:
        """(..., d), g_J = Gᵀω."""
        return self._combine(check_task_weights(self._weights, self.coefficients))

    @property
    def mean(self) -> Tensor:
        """(..., d), μ = Gᵀ1/K."""
        return self._combine(torch.full_like(self.coefficients, 1.0 / self._gradients.shape[-2]))

    @property
    def alpha(self) -> Tensor:
        """(..., K), minimizer of the dual on the simplex."""
        return self._stages.dual.alpha.to(self._gradients.dtype)

    @property
    def dual_value(self) -> Tensor:
        """(...) float64, f(α*)."""
        value = self._stages.dual.value
        return value if self._unit is None else value * self._unit**2

    @property
    def valid(self) -> Tensor:
        """(...) bool, min_i g_iᵀu* ≥ 0 (theory T5)."""
        return self._stages.valid

    @property
    def dual(self) -> DualSolution:
        """Status of the solver; its value is in units of the largest squared gradient where gradients were scaled."""
        return self._stages.dual

    def _combine(self, coefficients: Tensor) -> Tensor:
        if _version(self._gradients) != self._version:
            raise RuntimeError(
                "the gradients were changed in place after came_grad; read what you need of its result before, or pass "
                "it a clone"
            )
        G = self._gradients
        coefficients = coefficients.to(G.dtype)
        if coefficients.shape != self.coefficients.shape:
            coefficients = coefficients.expand(self.coefficients.shape)
        if G.dim() == 2 and coefficients.dim() == 1:
            if G.shape[1] >= LONG and not G.requires_grad:
                (total,) = weighted_sum([[row] for row in G], coefficients.tolist())
                if total is not None:
                    return total
            return coefficients @ G
        return (coefficients[..., None, :] @ G)[..., 0, :]


def came_grad(
    gradients: Tensor,
    task_weights: Tensor | Sequence[float] | None = None,
    *,
    rho: float = DEFAULTS.rho,
    kappa: float = DEFAULTS.kappa,
    nu: float = DEFAULTS.nu,
    center: Center = DEFAULTS.center,
    fusion: Fusion = DEFAULTS.fusion,
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
    M, unit = gramian(gradients), None
    if gradients.dtype == torch.float64 and not _representable(M):
        unit = _unit(gradients)
        M = gramian(gradients / unit[..., None, None])
    stages = came_grad_stages(M, task_weights, rho=rho, kappa=kappa, nu=nu, center=center, fusion=fusion)
    return CAMEGradResult(gradients, stages, task_weights, unit)


def _representable(M: Tensor) -> bool:
    """Whether the largest squared norm of every problem is far from the ends of float64's range, or not a number."""
    largest = M.diagonal(dim1=-2, dim2=-1).amax(-1)
    return not bool(((largest <= SMALL) | (largest >= LARGE)).any())


def _unit(gradients: Tensor) -> Tensor:
    """(...) a power of two near max|G|, 1 for gradients that are zero or not finite."""
    if gradients.shape[-1] == 0:
        return gradients.new_ones(gradients.shape[:-2])
    largest = gradients.abs().amax((-2, -1))
    return power_of_two(torch.where(largest.isfinite(), largest, 1.0))


def _version(tensor: Tensor) -> int:
    """Counts changes in place; inference tensors do not."""
    return 0 if tensor.is_inference() else tensor._version
