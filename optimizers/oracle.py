"""The slow truth: CAME-Grad's first stage as cone programs, solved by cvxpy from the gradients.

Independent of :mod:`optimizers.dual.solve`: no Gramian, no closed form. For tests and for the sceptical.
"""

import contextlib
import warnings

import cvxpy
import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizers.dual.solve import check_rho

Array = NDArray[np.float64]


class OracleError(RuntimeError):
    """The cone solver did not reach an optimum."""


def primal(gradients: ArrayLike, rho: float = 0.5) -> tuple[Array, float]:
    r"""Solve :math:`\max_u \min_i g_i^⊤u` s.t. :math:`‖u - μ‖ ≤ ρ‖μ‖` (arXiv:2605.22635, eq. 8–9).

    Args:
        gradients: (K, d) numbers, finite.
        rho: relative radius in [0, 1).

    Returns:
        u of shape (d,) and the optimal value min_i g_iᵀu.

    Raises:
        ValueError: for a wrong shape, non-finite numbers, or rho outside [0, 1).
        OracleError: if the cone solver fails; it names the status.

    Example:
        >>> u, value = primal([[1.0, 0.0], [0.0, 1.0]])
        >>> u.round(6), round(value, 6)
        (array([0.75, 0.75]), 0.75)
    """
    G, scale = _prepare(gradients, rho)
    basis, coordinates = _span(G)
    mean = coordinates.mean(0)
    u, value = cvxpy.Variable(len(mean)), cvxpy.Variable()
    radius = rho * float(np.linalg.norm(mean))
    constraints = [coordinates @ u >= value, cvxpy.norm(u - mean) <= radius]
    _solve(cvxpy.Problem(cvxpy.Maximize(value), constraints))
    return scale * (basis @ u.value), scale**2 * float(value.value)


def dual(gradients: ArrayLike, rho: float = 0.5) -> tuple[Array, float]:
    r"""Solve :math:`\min_{α∈Δ} g_α^⊤μ + ρ‖μ‖‖g_α‖` (arXiv:2605.22635, eq. 10).

    Args and errors as :func:`primal`.

    Returns:
        alpha of shape (K,) and the optimal value.

    Example:
        >>> alpha, value = dual([[1.0, 0.0], [0.0, 1.0]])
        >>> alpha.round(6), round(value, 6)
        (array([0.5, 0.5]), 0.75)
    """
    G, scale = _prepare(gradients, rho)
    _, coordinates = _span(G)
    mean = coordinates.mean(0)
    alpha = cvxpy.Variable(len(G), nonneg=True)
    combined = coordinates.T @ alpha
    radius = rho * float(np.linalg.norm(mean))
    problem = cvxpy.Problem(cvxpy.Minimize(mean @ combined + radius * cvxpy.norm(combined)), [cvxpy.sum(alpha) == 1])
    _solve(problem)
    return np.asarray(alpha.value), scale**2 * float(problem.value)


def nearest_non_conflicting(gradients: ArrayLike) -> Array:
    """Project the mean gradient onto {u : g_iᵀu ≥ 0 ∀i}: the rule where g_α = 0.

    See book/dual.md, "Where the formula has no meaning".

    Args:
        gradients: (K, d) numbers, finite.

    Returns:
        u of shape (d,).

    Raises:
        ValueError: for a wrong shape or non-finite numbers.
        OracleError: if the cone solver fails.

    Example:
        >>> nearest_non_conflicting([[1.0, 0.0], [-1.0, 0.0], [0.5, 1.0]]).round(6) + 0.0
        array([0.      , 0.333333])
    """
    G, scale = _prepare(gradients, 0.0)
    basis, coordinates = _span(G)
    u = cvxpy.Variable(coordinates.shape[1])
    distance = cvxpy.sum_squares(u - coordinates.mean(0))
    _solve(cvxpy.Problem(cvxpy.Minimize(distance), [coordinates @ u >= 0]))
    return scale * (basis @ u.value)


def _prepare(gradients: ArrayLike, rho: float) -> tuple[Array, float]:
    G = np.asarray(gradients, dtype=np.float64)
    if G.ndim != 2 or 0 in G.shape:
        raise ValueError(f"gradients must have shape (K, d) with K, d >= 1, got {G.shape}")
    if not np.isfinite(G).all():
        task = int(np.argwhere(~np.isfinite(G))[0, 0])
        raise ValueError(f"gradient of task {task} is not finite")
    check_rho(rho)
    scale = float(np.abs(G).max()) or 1.0
    return G / scale, scale


def _span(G: Array) -> tuple[Array, Array]:
    """Orthonormal basis (d, m) of a space containing the rows, and their coordinates (K, m)."""
    basis, _ = np.linalg.qr(G.T)
    return basis, G @ basis


def _solve(problem: cvxpy.Problem) -> None:
    """Ask for 1e-12 first, then, where rounding stops the interior-point method before, for less."""
    accepted = (cvxpy.OPTIMAL, cvxpy.OPTIMAL_INACCURATE)
    reduced = dict.fromkeys(("reduced_tol_gap_abs", "reduced_tol_gap_rel", "reduced_tol_feas"), 1e-8)
    for tolerance in (1e-12, 1e-11, 1e-10, 1e-9, 1e-8):
        wanted = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
        with warnings.catch_warnings(), contextlib.suppress(cvxpy.SolverError):
            warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
            problem.solve(solver=cvxpy.CLARABEL, **wanted, **reduced)
        if problem.status == cvxpy.OPTIMAL:
            return
    if problem.status not in accepted:
        raise OracleError(f"the cone solver ended with status {problem.status!r}")
