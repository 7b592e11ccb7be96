"""A zoo of gradient matrices with rows of floating-point numbers, drawn by NumPy.

Each sampler returns a (K, d) float64 matrix of order one; its docstring says why it belongs to its kind.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Sampler = Callable[[np.random.Generator, int], Matrix]


def independent(rng: np.random.Generator, tasks: int) -> Matrix:
    """Gaussian rows with a common part: linearly independent with probability one (d > K)."""
    d = tasks + 5
    return rng.normal(size=(tasks, d)) + 0.3 * rng.normal(size=d)


def low_rank(rng: np.random.Generator, tasks: int) -> Matrix:
    """Rows in the plane: rank ≤ 2 < K as soon as K > 2."""
    return rng.normal(size=(tasks, 2)) + 0.5 * rng.normal(size=2)


def stationary(rng: np.random.Generator, tasks: int) -> Matrix:
    """A convex combination with positive weights is subtracted, so it vanishes: 0 lies in the hull."""
    G = independent(rng, tasks)
    return np.asarray(G - rng.dirichlet(np.ones(tasks)) @ G)


def opposite(rng: np.random.Generator, tasks: int) -> Matrix:
    """Task 1 points exactly against task 0: a combination of the two vanishes, μ need not."""
    G = independent(rng, tasks)
    if tasks > 1:
        G[1] = -G[0] * 2.0 ** rng.integers(-3, 3)
    return G


def duplicated(rng: np.random.Generator, tasks: int) -> Matrix:
    """The last row repeats the first: the dual's minimizer is not unique."""
    G = independent(rng, tasks)
    G[-1] = G[0]
    return G


def nearly_duplicated(rng: np.random.Generator, tasks: int) -> Matrix:
    """The last row is the first up to 1e-9: their difference is lost in the float64 Gramian."""
    G = independent(rng, tasks)
    G[-1] = G[0] + 1e-9 * rng.normal(size=G.shape[1])
    return G


def collinear(rng: np.random.Generator, tasks: int) -> Matrix:
    """Every row is a multiple, of either sign, of one vector."""
    return np.outer(rng.normal(size=tasks) + 0.5, rng.normal(size=4))


def zero_row(rng: np.random.Generator, tasks: int) -> Matrix:
    """One task has no gradient: its product with any direction is 0."""
    G = independent(rng, tasks)
    G[rng.integers(tasks)] = 0.0
    return G


def badly_scaled(rng: np.random.Generator, tasks: int) -> Matrix:
    """Row norms spread over twelve decades."""
    return np.asarray(independent(rng, tasks) * 10.0 ** rng.uniform(-12, 0, size=(tasks, 1)))


def zero(rng: np.random.Generator, tasks: int) -> Matrix:
    """No task has a gradient."""
    return np.zeros((tasks, 3))


SAMPLERS: dict[str, Sampler] = {
    sampler.__name__: sampler
    for sampler in (
        independent, low_rank, stationary, opposite, duplicated, nearly_duplicated, collinear, zero_row,
        badly_scaled, zero,
    )
}  # fmt: skip
WELL_POSED = ("independent", "low_rank", "duplicated", "zero_row", "collinear", "opposite")


def sample(kind: str, tasks: int, seed: int) -> Matrix:
    """The (tasks, d) matrix of a kind and a seed.

    Example:
        >>> sample("opposite", 2, seed=0).shape
        (2, 7)
    """
    return SAMPLERS[kind](np.random.default_rng([seed, tasks]), tasks)
