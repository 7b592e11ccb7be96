r"""T1, interaction identity: how conflicts between tasks shorten the joint gradient.

.. math:: ‖g_J‖² = \sum_i ω_i²‖g_i‖² + 2\sum_{i<j} ω_iω_j\,g_i^⊤g_j, \qquad g_J = \sum_i ω_ig_i.

Exact for every K, d, ω and G. The paper (arXiv:2605.22635, eq. 3–4) keeps only the pairs with task 0;
the truncation misses exactly :math:`2\sum_{1≤i<j} ω_iω_j\,g_i^⊤g_j`, which vanishes for K = 2.

What it does not say: whether a shorter joint gradient trains worse. That is T2's and T3's business.
"""

from fractions import Fraction

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray

from optimizers import gramian
from sde_mtl.theory.check import Check, require


def derive(tasks: int = 4, dimension: int = 3) -> sympy.Expr:
    """Expand ‖g_J‖² symbolically and return the error of the paper's truncation.

    Raises:
        DerivationError: if the identity does not reduce to 0.

    Example:
        >>> derive(tasks=2, dimension=2)
        0
        >>> derive(tasks=3, dimension=1)
        2*g1_0*g2_0*w1*w2
    """
    w = sympy.symbols(f"w:{tasks}")
    g = [sympy.Matrix(sympy.symbols(f"g{i}_:{dimension}")) for i in range(tasks)]
    joint = sum((w[i] * g[i] for i in range(tasks)), sympy.zeros(dimension, 1))
    squares = sum(w[i] ** 2 * g[i].dot(g[i]) for i in range(tasks))
    pairs = {(i, j): 2 * w[i] * w[j] * g[i].dot(g[j]) for i in range(tasks) for j in range(i + 1, tasks)}
    require(sympy.expand(joint.dot(joint) - squares - sum(pairs.values())) == 0, "T1, the identity")
    kept = squares + sum(term for (i, _), term in pairs.items() if i == 0)
    return sympy.factor(sympy.expand(joint.dot(joint) - kept))


def squared_norm(M: ArrayLike, task_weights: ArrayLike) -> NDArray[np.float64]:
    """The right-hand side from the Gramian: (..., K, K), (K,) → (...).

    Example:
        >>> float(squared_norm([[1.0, -0.5], [-0.5, 1.0]], [1.0, 1.0]))
        1.0
    """
    M, w = np.asarray(M, dtype=np.float64), np.asarray(task_weights, dtype=np.float64)
    weighted = M * w[:, None] * w
    diagonal = np.einsum("...ii->...", weighted)
    upper = np.triu(np.ones_like(weighted), 1) * weighted
    return np.asarray(diagonal + 2 * upper.sum((-2, -1)))


def truncated_squared_norm(M: ArrayLike, task_weights: ArrayLike) -> NDArray[np.float64]:
    """The same with only the pairs (0, k), as the paper prints it."""
    M, w = np.asarray(M, dtype=np.float64), np.asarray(task_weights, dtype=np.float64)
    weighted = M * w[:, None] * w
    return np.asarray(np.einsum("...ii->...", weighted) + 2 * weighted[..., 0, 1:].sum(-1))


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Sympy, exact rational arithmetic, and floating-point gradients; the truncation as control."""
    missing = derive()
    rng = np.random.default_rng(seed)
    mismatches = 0
    for _ in range(200):
        tasks = int(rng.integers(2, 7))
        G = [[Fraction(int(n), 7) for n in row] for row in rng.integers(-50, 50, size=(tasks, 4))]
        w = [Fraction(int(n), 3) for n in rng.integers(0, 9, size=tasks)]
        joint = [sum(w[i] * G[i][a] for i in range(tasks)) for a in range(4)]
        inner = [[sum(p * q for p, q in zip(G[i], G[j], strict=True)) for j in range(tasks)] for i in range(tasks)]
        right = sum(w[i] ** 2 * inner[i][i] for i in range(tasks)) + 2 * sum(
            w[i] * w[j] * inner[i][j] for i in range(tasks) for j in range(i + 1, tasks)
        )
        mismatches += sum(x * x for x in joint) != right

    many = torch.from_numpy(rng.normal(size=(500, 4, 1000)))
    weights = rng.uniform(0.1, 4, size=4)
    measured = torch.einsum("k,nkd->nd", torch.from_numpy(weights), many).square().sum(-1).numpy()
    M = gramian(many).numpy()
    exact, truncated = squared_norm(M, weights), truncated_squared_norm(M, weights)
    error = np.abs(exact / measured - 1)
    worst = int(error.argmax())
    off = np.abs(truncated / measured - 1)
    far = int(off.argmax())
    terms = len(sympy.Add.make_args(sympy.expand(missing)))
    return [
        Check("T1.a", "‖g_J‖² = Σω²‖g‖² + 2Σω_iω_jg_iᵀg_j, K ≤ 6", 0, mismatches, mismatches, 0, "count",
              "exact rational arithmetic, 200 random problems"),
        Check("T1.b", "the same from a float64 Gramian, K = 4, d = 1000", float(exact[worst]),
              float(measured[worst]), float(error[worst]), 1e-12, "relative", "500 random gradients, worst"),
        Check("T1.c", "terms that the paper's truncation misses, K = 4, d = 3", 9, terms,
              abs(terms - 9), 0, "count", "sympy: 3 pairs without task 0, 3 products each"),
        Check("T1.d", "the truncated identity for K = 4", float(truncated[far]), float(measured[far]),
              float(off[far]), 1e-12, "relative", "500 random gradients", control=True),
    ]  # fmt: skip
