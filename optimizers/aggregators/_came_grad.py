"""The stages of CAME-Grad on the Gramian: compiled on a CPU, in torch elsewhere; see :func:`optimizers.came_grad`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from optimizers.aggregators._came_grad_batched import solve_stages
from optimizers.dual.on_cpu import Array, cpu_problems, cpu_weights, run, solve_anew
from optimizers.dual.solve import DualSolution, check_rho, report_gaps
from optimizers.dual.solved_rows import SolvedRows
from optimizers.gradients.checks import check_gramian, check_task_weights
from optimizers.kernels.columns import COEFFICIENTS, ENHANCED, FUSION, RECTIFIED, VALID, stages_width

Center = Literal["mean", "weighted"]
Fusion = Literal["fixed", "adaptive"]


@dataclass(frozen=True)
class CAMEGradOptions:
    """Hyperparameters of CAME-Grad, checked; see :func:`optimizers.came_grad`.

    Attributes:
        rho: relative trust-region radius ρ in [0, 1).
        kappa: magnitude enhancement κ ≥ 1.
        nu: share ν in [0, 1] of the joint gradient.
        center: of the trust region, "mean" or "weighted".
        fusion: "fixed" or "adaptive".

    Raises:
        ValueError: for a value outside its domain, naming both.

    Example:
        >>> CAMEGradOptions(nu=0.5)
        CAMEGradOptions(rho=0.5, kappa=1.5, nu=0.5, center='mean', fusion='fixed')
        >>> CAMEGradOptions(kappa=0.5)
        Traceback (most recent call last):
        ValueError: kappa = 0.5 must be finite and >= 1: it enhances the magnitude
    """

    rho: float = 0.5
    kappa: float = 1.5
    nu: float = 0.2
    center: Center = "mean"
    fusion: Fusion = "fixed"

    def __post_init__(self) -> None:
        check_rho(self.rho)
        if not 1.0 <= self.kappa < float("inf"):
            raise ValueError(f"kappa = {self.kappa} must be finite and >= 1: it enhances the magnitude")
        if not 0.0 <= self.nu <= 1.0:
            raise ValueError(f"nu = {self.nu} must lie in [0, 1]: it is the share of the joint gradient")
        if self.center not in ("mean", "weighted"):
            raise ValueError(f"center = {self.center!r} must be 'mean' or 'weighted'")
        if self.fusion not in ("fixed", "adaptive"):
            raise ValueError(f"fusion = {self.fusion!r} must be 'fixed' or 'adaptive'")

    def numbers(self) -> tuple[float, float, float, bool, bool]:
        """As the kernels take them: ρ, κ, ν, whether the centre is weighted and whether fusion is adaptive.

        Example:
            >>> DEFAULTS.numbers()
            (0.5, 1.5, 0.2, False, False)
        """
        weighted, adapted = self.center == "weighted", self.fusion == "adaptive"
        return float(self.rho), float(self.kappa), float(self.nu), weighted, adapted


DEFAULTS = CAMEGradOptions()
"""Those of the paper."""


class CAMEGradCoefficients(SolvedRows):
    """The stages of CAME-Grad as combinations of the task gradients.

    Args:
        columns: (B, ·) float64; :mod:`optimizers.kernels.columns` names them.
        batch: leading dimensions, of B problems.
        tasks: K.
    """

    __slots__ = ()

    @property
    def dual(self) -> DualSolution:
        """The solved dual; with ``center="weighted"`` that of the gradients ω_i g_i."""
        return DualSolution(self._columns, self._batch, self._tasks)

    @property
    def rectified(self) -> Tensor:
        """(..., K) float64, u* = Gᵀ·rectified."""
        return self._vector(RECTIFIED)

    @property
    def enhanced(self) -> Tensor:
        """(..., K) float64, u_en = Gᵀ·enhanced."""
        return self._vector(ENHANCED)

    @property
    def coefficients(self) -> Tensor:
        """(..., K) float64, F = Gᵀ·coefficients."""
        return self._vector(COEFFICIENTS)

    @property
    def fusion(self) -> Tensor:
        """(...) float64, the ν that was used."""
        return self._number(FUSION)

    @property
    def valid(self) -> Tensor:
        """(...) bool, the T5 certificate: every task improves along u*, that is f(α*) ≥ 0."""
        return self._number(VALID) > 0


def came_grad_coefficients(
    gramian: Tensor,
    task_weights: Tensor | Sequence[float] | None = None,
    *,
    rho: float = DEFAULTS.rho,
    kappa: float = DEFAULTS.kappa,
    nu: float = DEFAULTS.nu,
    center: Center = DEFAULTS.center,
    fusion: Fusion = DEFAULTS.fusion,
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
    options = _numbers(rho, kappa, nu, center, fusion)
    arrays = _arrays(gramian, task_weights)
    if arrays is None:
        return _stages(gramian, task_weights, options).coefficients
    problems, weights = arrays
    rows = np.empty(problems.shape[:2])
    if run(_kernel().coefficient_rows, gramian, problems, weights, *options, rows=rows):
        unsolved = np.isnan(rows[:, 0])
        M = gramian.reshape(problems.shape)[torch.from_numpy(unsolved)]
        w = torch.from_numpy(np.broadcast_to(weights, rows.shape)[unsolved])
        rows[unsolved] = _stages(M, w, options).coefficients.numpy()
    return torch.from_numpy(rows).reshape(gramian.shape[:-1])


def came_grad_stages(
    gramian: Tensor,
    task_weights: Tensor | Sequence[float] | None = None,
    *,
    rho: float = DEFAULTS.rho,
    kappa: float = DEFAULTS.kappa,
    nu: float = DEFAULTS.nu,
    center: Center = DEFAULTS.center,
    fusion: Fusion = DEFAULTS.fusion,
) -> CAMEGradCoefficients:
    """All three stages of CAME-Grad from the Gramian; arguments as in :func:`came_grad_coefficients`.

    Raises:
        ValueError: as :func:`came_grad`.

    Example:
        >>> came_grad_stages(torch.eye(2), [1.0, 1.0]).rectified
        tensor([0.7500, 0.7500], dtype=torch.float64)
    """
    return _stages(gramian, task_weights, _numbers(rho, kappa, nu, center, fusion))


Numbers = tuple[float, float, float, bool, bool]


@lru_cache
def _numbers(rho: float, kappa: float, nu: float, center: Center, fusion: Fusion) -> Numbers:
    """:meth:`CAMEGradOptions.numbers`, checked once: the same options come with every step."""
    return CAMEGradOptions(rho, kappa, nu, center, fusion).numbers()


def _arrays(gramian: Tensor, task_weights: Tensor | Sequence[float] | None) -> tuple[Array, Array] | None:
    """Problems (B, K, K) and weights (1 or B, K) for the kernels; None where they do not take both."""
    problems = cpu_problems(gramian)
    if problems is None:
        return None
    weights = cpu_weights(task_weights, gramian.shape[:-2], problems.shape[1])
    return None if weights is None else (problems, weights)


def _stages(gramian: Tensor, task_weights: Tensor | Sequence[float] | None, options: Numbers) -> CAMEGradCoefficients:
    arrays = _arrays(gramian, task_weights)
    if arrays is None:
        M = check_gramian(gramian)
        tasks = M.shape[-1]
        w = check_task_weights(task_weights, M)
        batch = torch.broadcast_shapes(M.shape[:-2], w.shape[:-1])
        M = M.expand(*batch, tasks, tasks).reshape(-1, tasks, tasks)
        columns = solve_stages(M, w.expand(*batch, tasks).reshape(-1, tasks), *options)
        solution = CAMEGradCoefficients(columns, batch, tasks)
    else:
        problems, weights = arrays
        batch, tasks = gramian.shape[:-2], problems.shape[1]
        rows = np.empty((len(problems), stages_width(tasks)))
        solution = CAMEGradCoefficients(rows, batch, tasks)
        if not run(_kernel().stage_rows, gramian, problems, weights, *options, rows=rows):
            return solution
        of_each = np.broadcast_to(weights, problems.shape[:2])
        solve_anew(rows, lambda i: solve_stages(torch.from_numpy(problems[i]), torch.from_numpy(of_each[i]), *options))
    report_gaps(solution.dual)
    return solution


@cache
def _kernel() -> ModuleType:
    from optimizers.kernels import came_grad as came_grad_kernel

    return came_grad_kernel
