"""The stages of CAME-Grad on the Gramian: compiled on a CPU, in torch elsewhere; see :func:`optimizers.came_grad`."""

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from optimizers.aggregators._came_grad_batched import solve_stages
from optimizers.dual.on_cpu import cpu_problems, cpu_weights, run
from optimizers.dual.solve import DualSolution, check_rho, report_gaps
from optimizers.dual.solved_rows import SolvedRows
from optimizers.gradients.checks import check_gramian, check_task_weights

Center = Literal["mean", "weighted"]
Fusion = Literal["fixed", "adaptive"]


class CAMEGradCoefficients(SolvedRows):
    """The stages of CAME-Grad as combinations of the task gradients.

    Args:
        columns: (B, 5K + 6) float64: those of the dual, then rectified, enhanced, coefficients, fusion, valid.
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
        return self._vector(2 * self._tasks + 4)

    @property
    def enhanced(self) -> Tensor:
        """(..., K) float64, u_en = Gᵀ·enhanced."""
        return self._vector(3 * self._tasks + 4)

    @property
    def coefficients(self) -> Tensor:
        """(..., K) float64, F = Gᵀ·coefficients."""
        return self._vector(4 * self._tasks + 4)

    @property
    def fusion(self) -> Tensor:
        """(...) float64, the ν that was used."""
        return self._number(-2)

    @property
    def valid(self) -> Tensor:
        """(...) bool, the T5 certificate: every task improves along u*, that is f(α*) ≥ 0."""
        return self._number(-1) > 0


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
    check_options(rho=rho, kappa=kappa, nu=nu, center=center, fusion=fusion)
    options = rho, kappa, nu, center == "weighted", fusion == "adaptive"
    found = _coefficients_on_cpu(gramian, task_weights, options)
    if found is not None:
        return found
    return _stages(gramian, task_weights, options).coefficients


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
    return _stages(gramian, task_weights, (rho, kappa, nu, center == "weighted", fusion == "adaptive"))


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


Options = tuple[float, float, float, bool, bool]


def _stages(gramian: Tensor, task_weights: Tensor | Sequence[float] | None, options: Options) -> CAMEGradCoefficients:
    problems = cpu_problems(gramian)
    weights = None if problems is None else cpu_weights(task_weights, gramian.shape[:-2], problems.shape[1])
    if problems is None or weights is None:
        M = check_gramian(gramian)
        tasks = M.shape[-1]
        w = check_task_weights(task_weights, M)
        batch = torch.broadcast_shapes(M.shape[:-2], w.shape[:-1])
        M = M.expand(*batch, tasks, tasks).reshape(-1, tasks, tasks)
        columns = solve_stages(M, w.expand(*batch, tasks).reshape(-1, tasks), *options)
    else:
        batch, tasks = gramian.shape[:-2], problems.shape[1]
        rows = np.empty((len(problems), 5 * tasks + 6))
        unsolved = run(_kernel().stage_rows, gramian, problems, weights, *options, rows=rows)
        if not unsolved:
            return CAMEGradCoefficients(rows, batch, tasks)
        columns = torch.from_numpy(rows)
        _solve_anew(columns, problems, weights, options)
    solution = CAMEGradCoefficients(columns, batch, tasks)
    report_gaps(solution.dual)
    return solution


def _coefficients_on_cpu(
    gramian: Tensor, task_weights: Tensor | Sequence[float] | None, options: Options
) -> Tensor | None:
    """(..., K) coefficients without the columns that lead to them; None for what the kernel does not take."""
    problems = cpu_problems(gramian)
    weights = None if problems is None else cpu_weights(task_weights, gramian.shape[:-2], problems.shape[1])
    if problems is None or weights is None:
        return None
    rows = np.empty(problems.shape[:2])
    unsolved = run(_kernel().coefficient_rows, gramian, problems, weights, *options, rows=rows)
    coefficients = torch.from_numpy(rows)
    if unsolved:
        left = coefficients[:, 0].isnan()
        w = torch.from_numpy(weights).expand(rows.shape)[left]
        coefficients[left] = _stages(torch.from_numpy(problems)[left], w, options).coefficients
    return coefficients.reshape(gramian.shape[:-1])


def _solve_anew(columns: Tensor, problems: np.ndarray, weights: np.ndarray, options: Options) -> None:
    """Rows that the kernel left unsolved, by the method in torch where it comes closer."""
    gap = 2 * problems.shape[1] + 1
    left = (~(columns[:, gap] <= _kernel().SOLVED)).nonzero()[:, 0]
    w = torch.from_numpy(weights).expand(len(problems), problems.shape[1])
    again = solve_stages(torch.from_numpy(problems)[left], w[left], *options)
    better = again[:, gap] < columns[left, gap]
    columns[left[better]] = again[better]


@cache
def _kernel() -> ModuleType:
    from optimizers.kernels import came_grad as came_grad_kernel

    return came_grad_kernel
