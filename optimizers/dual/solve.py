"""The conflict-averse dual of CAME-Grad's first stage, solved exactly from the Gramian.

    primal   max_u min_i g_iᵀu   subject to ‖u − μ‖ ≤ r,  r = ρ‖μ‖         (arXiv:2605.22635, eq. 8–9)
    dual     min_{α∈Δ} f(α) = g_αᵀμ + r‖g_α‖,   u* = μ + r g_α/‖g_α‖         (eq. 10)

On a CPU a compiled kernel solves one problem after another (:mod:`optimizers.kernels.dual`); on other devices, and for
the rare problem that the kernel leaves unsolved, :mod:`optimizers.dual.batched` does.
"""

from functools import cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optimizers.dual.batched import solve_batch
from optimizers.dual.on_cpu import cpu_problems, run, solve_anew
from optimizers.dual.solved_rows import SolvedRows
from optimizers.errors import report_unsolved
from optimizers.gradients.checks import check_gramian
from optimizers.kernels.columns import ALPHA, ITERATIONS, MULTIPLIERS, RESIDUAL, RESOLVABLE, VALUE, dual_width
from optimizers.kernels.floats import TOLERANCE


class DualSolution(SolvedRows):
    """Answer of :func:`solve_dual`; every field is batched over the leading dimensions.

    Args:
        columns: (B, ·) float64 rows of the dual, or longer ones that begin so; :mod:`optimizers.kernels.columns` names
            the columns.
        batch: leading dimensions, of B problems.
        tasks: K.
    """

    __slots__ = ()

    @property
    def alpha(self) -> Tensor:
        """(..., K) float64 minimizer on the simplex. Not unique where gradients are affinely dependent."""
        return self._vector(ALPHA)

    @property
    def multipliers(self) -> Tensor:
        """(..., K) float64 β ≥ 0 with u* = μ + Gᵀβ.

        Where g_α ≠ 0 it is rα/‖g_α‖; where g_α = 0 (Pareto stationary) it is the projection of μ onto
        {u : g_iᵀu ≥ 0 ∀i}.
        """
        return self._vector(MULTIPLIERS)

    @property
    def value(self) -> Tensor:
        """(...) float64, f(α*), in the units of the Gramian.

        It equals min_i g_iᵀu* and is ≥ 0 iff the direction is valid (theory T5).
        """
        return self._number(VALUE)

    @property
    def residual(self) -> Tensor:
        """(...) float64, the duality gap max(f(α) − min_i g_iᵀu, 0) divided by ‖μ‖·max_i‖g_i‖."""
        return self._number(RESIDUAL)

    @property
    def iterations(self) -> Tensor:
        """(...) int64, supports visited; 0 where a closed form applied."""
        return self._number(ITERATIONS).long()

    @property
    def converged(self) -> Tensor:
        """(...) bool, residual ≤ 1e-12 + 4ε(max_i‖g_i‖/‖g_α‖)² with ε = 2⁻⁵².

        The second term is the relative error of ‖g_α‖² in a float64 Gramian when g_α is nearly zero.
        """
        return self._number(RESIDUAL) <= TOLERANCE + self._number(RESOLVABLE)

    def __repr__(self) -> str:
        names = ("alpha", "value", "residual", "iterations", "converged", "multipliers")
        return f"DualSolution({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


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
    check_rho(rho)
    problems = cpu_problems(gramian)
    columns: Tensor | NDArray[np.float64]
    if problems is None:
        M = check_gramian(gramian)
        tasks = M.shape[-1]
        columns = _solve_in_torch(M.reshape(-1, tasks, tasks), rho)
    else:
        tasks = problems.shape[1]
        columns = np.empty((len(problems), dual_width(tasks)))
        if run(_kernel().solve_rows, gramian, problems, rho, rows=columns):
            solve_anew(columns, lambda indices: _solve_in_torch(torch.from_numpy(problems[indices]), rho))
    return DualSolution(columns, gramian.shape[:-2], tasks)


def report_gaps(solution: DualSolution) -> None:
    """Report problems that did not converge to :func:`optimizers.report_unsolved`."""
    converged = solution.converged
    if not converged.all():
        residual = solution.residual[~converged]
        report_unsolved(
            f"the dual of {len(residual)} problem(s) has a duality gap of up to {residual.max().item():.1e} "
            "(relative); check the Gramian for entries that are not inner products",
            stacklevel=4,
        )


def check_rho(rho: float) -> None:
    """Refuse a relative radius outside [0, 1).

    Raises:
        ValueError: naming the value.
    """
    if not 0.0 <= rho < 1.0:
        raise ValueError(f"rho = {rho} must lie in [0, 1): the trust region must not contain 0")


def _solve_in_torch(M: Tensor, rho: float) -> Tensor:
    """Rows of (B, K, K) problems, centred on the mean gradient."""
    tasks = M.shape[-1]
    return solve_batch(M, M.new_full((1, tasks), 1.0 / tasks), rho)


@cache
def _kernel() -> ModuleType:
    from optimizers.kernels import dual as dual_kernel

    return dual_kernel
