"""The conflict-averse dual as its peers are given it: a Gramian in, the solver's answer out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DualProblem:
    """One Gramian as an array and as a tensor of the same memory: nobody pays for a conversion."""

    array: Array
    tensor: Tensor

    @classmethod
    def of(cls, gradients: Array) -> "DualProblem":
        product = gradients @ gradients.T
        array = (product + product.T) / 2
        return cls(array, torch.from_numpy(array))


Answer = Callable[[], Array]
"""Makes the (K,) coefficients c of u = Gᵀc of what a solver found, outside the time of the solve."""
Solver = Callable[[DualProblem], Answer]


def in_turn(solve: Solver, problems: Sequence[DualProblem]) -> Callable[[], Answer]:
    """A function that solves the next problem, beginning again after the last."""
    feed = cycle(problems)
    return lambda: solve(next(feed))


def coefficients(gramian: Array, alpha: Array, radius: float) -> Array:
    """(K,) c with u = Gᵀc = μ + r g_α/‖g_α‖; the mean where g_α = 0."""
    length = np.sqrt(max(alpha @ gramian @ alpha, 0.0))
    return 1.0 / len(alpha) + (radius / length if length > 0 else 0.0) * alpha


def factor(gramian: Array) -> Array:
    """Lower triangular L with LLᵀ = M: Cholesky's, or by eigenvectors and QR where M is singular."""
    try:
        return np.linalg.cholesky(gramian)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(gramian)
        return np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0.0))).T).R.T


def random_gradients(tasks: int, generator: np.random.Generator) -> Array:
    """(K, 2K) Gaussian gradients whose lengths differ by up to a factor of nine: a well-posed problem."""
    lengths = 3.0 ** generator.uniform(-1.0, 1.0, (tasks, 1))
    return lengths * generator.standard_normal((tasks, 2 * tasks))


def shortfall(gramian: Array, found: Any, rho: float, best: float) -> float:
    """How far u = Gᵀc is from optimal, relative to the problem's own size; 0 for an exact answer.

    The larger of (f* − min_i g_iᵀu)/(‖μ‖·max_i‖g_i‖) and (‖u − μ‖ − r)/‖μ‖.

    Args:
        gramian: (K, K).
        found: (K,) coefficients c.
        rho: relative radius.
        best: f*, or an upper bound of it.
    """
    shift = found - 1.0 / len(found)
    centre = np.sqrt(gramian.mean())
    lacking = (best - (gramian @ found).min()) / (centre * np.sqrt(gramian.diagonal().max()))
    outside = np.sqrt(max(shift @ gramian @ shift, 0.0)) / centre - rho
    return float(max(lacking, outside, 0.0))


def dual_value(gramian: Array, found: Any, rho: float) -> float:
    """f(α) of the α on the simplex that c = 1/K + β stands for, an upper bound of f*; +∞ for no direction at all."""
    shift = np.maximum(found - 1.0 / len(found), 0.0)
    if not shift.sum() > 0:
        return np.inf
    alpha = shift / shift.sum()
    products = gramian @ alpha
    return float(products.mean() + rho * np.sqrt(gramian.mean()) * np.sqrt(max(alpha @ products, 0.0)))
