r"""Other routes to the conflict-averse dual, to compare :func:`optimizers.solve_dual` with: all supports, SLSQP, cvxpy.

With β = r α/‖g_α‖ and b = M1/K the optimum is, on its support S, :math:`Mβ + b = t` and :math:`β^⊤Mβ = r²`, so that

.. math:: β_S = t\,x - y, \quad x = M_{SS}^{-1}1, \quad y = M_{SS}^{-1}b_S, \quad (1^⊤x)t² - 2(1^⊤y)t + b_S^⊤y = r²,

with the larger root t = f(α*) (book/dual.md, "More tasks"). There are 2^K − 1 supports; one satisfies β ≥ 0 and
Mβ + b ≥ t.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from optimizers import gramian, oracle, solve_dual
from sde_mtl.theory.check import require

Array = NDArray[np.float64]
ROUNDING = 1e-9


def derive() -> sympy.Expr:
    """The quadratic in t for a support of two tasks, βᵀMβ − r² with β = tx − y.

    Raises:
        DerivationError: if it is not (1ᵀx)t² − 2(1ᵀy)t + bᵀy − r².

    Example:
        >>> sympy.degree(derive(), sympy.Symbol("t"))
        2
    """
    t, r, m11, m12, m22, b1, b2 = sympy.symbols("t r m11 m12 m22 b1 b2")
    M, b, one = sympy.Matrix([[m11, m12], [m12, m22]]), sympy.Matrix([b1, b2]), sympy.Matrix([1, 1])
    x, y = M.inv() * one, M.inv() * b
    beta = t * x - y
    quadratic = one.dot(x) * t**2 - 2 * one.dot(y) * t + b.dot(y) - r**2
    require(sympy.simplify(beta.dot(M * beta) - r**2 - quadratic) == 0, "the dual on a support")
    require((M * beta + b - t * one).applyfunc(sympy.simplify) == sympy.zeros(2, 1), "equal products on the support")
    return quadratic


def by_enumeration(gradients: ArrayLike, rho: float = 0.5) -> Array:
    """α of the dual from all 2^K − 1 supports; NaN if none is optimal (dependent gradients).

    Args:
        gradients: (K, d), linearly independent.
        rho: in (0, 1).

    Example:
        >>> by_enumeration(np.eye(3)).round(6)
        array([0.333333, 0.333333, 0.333333])
    """
    G = _scaled(gradients)
    M, tasks = G @ G.T, len(G)
    b = M.mean(1)
    r2 = rho**2 * b.mean()
    for size in range(1, tasks + 1):
        for support in map(list, combinations(range(tasks), size)):
            x, y = np.linalg.solve(M[np.ix_(support, support)], np.stack([np.ones(size), b[support]], 1)).T
            half, constant = y.sum() / x.sum(), (b[support] @ y - r2) / x.sum()
            if half**2 < constant:
                continue
            t = half + np.sqrt(half**2 - constant)
            beta = np.zeros(tasks)
            beta[support] = t * x - y
            if (beta >= -ROUNDING).all() and (M @ beta + b >= t - ROUNDING).all():
                beta = np.maximum(beta, 0)
                return np.asarray(beta / beta.sum())
    return np.full(tasks, np.nan)


def by_slsqp(gradients: ArrayLike, rho: float = 0.5) -> Array:
    """α by scipy's SLSQP on the Gramian as it is, from the uniform start, tolerances at their defaults.

    Args:
        gradients: (K, d).
        rho: in [0, 1).
    """
    G = np.asarray(gradients, np.float64)
    M = G @ G.T
    b = M.mean(1)
    radius, start = rho * np.sqrt(b.mean()), np.full(len(G), 1 / len(G))
    total = {"type": "eq", "fun": lambda a: a.sum() - 1}
    solution = minimize(
        lambda a: a @ b + radius * np.sqrt(max(a @ M @ a, 0.0)), start, bounds=[(0, 1)] * len(G), constraints=[total]
    )
    return np.asarray(solution.x)


def by_solver(gradients: ArrayLike, rho: float = 0.5) -> Array:
    """α by :func:`optimizers.solve_dual`, from the Gramian."""
    return solve_dual(gramian(torch.as_tensor(np.asarray(gradients, np.float64))), rho).alpha.numpy()


def by_cvxpy(gradients: ArrayLike, rho: float = 0.5) -> Array:
    """α by cvxpy's cone program, from the gradients; clipped to the simplex."""
    alpha = np.maximum(oracle.dual(gradients, rho)[0], 0)
    return np.asarray(alpha / alpha.sum())


def gap(gradients: ArrayLike, alpha: ArrayLike, rho: float = 0.5) -> float:
    """Relative duality gap (f(α) − min_i g_iᵀu)/(‖μ‖ max_i‖g_i‖) of any α on the simplex, computed from the gradients.

    No answer is better than f(α*) = min_i g_iᵀu*, so the gap bounds the error of both without knowing them.

    Args:
        gradients: (K, d).
        alpha: (K,).
        rho: in [0, 1).

    Example:
        >>> gap(np.eye(2), [0.5, 0.5]) < 1e-15, round(gap(np.eye(2), [0.9, 0.1]), 3)
        (True, 0.398)
    """
    G, a = _scaled(gradients), np.asarray(alpha, np.float64)
    mean, combined = G.mean(0), a @ G
    u = mean + rho * np.linalg.norm(mean) * combined / np.linalg.norm(combined)
    size = np.linalg.norm(mean) * np.linalg.norm(G, axis=1).max()
    return float((combined @ u - (G @ u).min()) / size)


def gaps(
    route: Callable[[ArrayLike, float], Array],
    *,
    tasks: int,
    scale: float = 1.0,
    problems: int = 20,
    rho: float = 0.5,
    seed: int = 0,
) -> Array:
    """Duality gaps of a route on random gradients of unequal lengths, times ``scale``: (problems,).

    Example:
        >>> float(gaps(by_solver, tasks=4, problems=3).max()) < 1e-14
        True
    """
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(size=(problems, tasks, 1)))
    G = lengths * rng.normal(size=(problems, tasks, 10))
    return np.array([gap(scale * g, route(scale * g, rho), rho) for g in G])


def visited(tasks: Sequence[int], *, problems: int = 2000, seed: int = 0) -> list[tuple[float, float, int]]:
    """Supports that the active-set method visits: mean, standard error and largest number, for each K.

    Args:
        tasks: values of K.
        problems: random problems for each.
        seed: of the gradients.

    Example:
        >>> [most < 10 for _, _, most in visited([3], problems=50)]
        [True]
    """
    rows = []
    for K in tasks:
        rng = torch.Generator().manual_seed(seed)
        count = solve_dual(gramian(torch.randn(problems, K, 2 * K, generator=rng, dtype=torch.float64))).iterations
        rows.append((count.double().mean().item(), count.double().std().item() / problems**0.5, int(count.max())))
    return rows


def _scaled(gradients: ArrayLike) -> Array:
    G = np.asarray(gradients, np.float64)
    return np.asarray(G / np.abs(G).max())
