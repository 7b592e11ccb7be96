"""Small examples that several statements share: two gradients in the plane, and two quadratic tasks."""

import numpy as np
import torch

from sde_mtl.problems import Quadratic

WEIGHTS = (1.0, 4.0)
"""Task weights of T6 … T8: those of the paper's trainer."""
KAPPA = 1.5
"""The paper's κ."""


def pair(ratio: float, angle: float, dimension: int = 2) -> torch.Tensor:
    """Two gradients of norms 1 and ``ratio`` at an angle, in the first two of d coordinates.

    Args:
        ratio: b/a = ‖g_2‖/‖g_1‖.
        angle: φ in radians.
        dimension: d ≥ 2.

    Returns:
        (2, d) float64.

    Example:
        >>> pair(2.0, np.pi / 2).round(decimals=6)
        tensor([[1., 0.],
                [0., 2.]], dtype=torch.float64)
    """
    G = torch.zeros(2, dimension, dtype=torch.float64)
    G[0, 0] = 1.0
    G[1, 0], G[1, 1] = ratio * np.cos(angle), ratio * np.sin(angle)
    return G


def example() -> Quadratic:
    """The two quadratic tasks of T6 … T8: A_1 = diag(1, 3), A_2 = diag(2, 0.7), c_1 = (1, 0), c_2 = (−1, ½).

    Drawn in the book's chapter "Where CAME-Grad comes to rest" (book/resting_points.md).

    Example:
        >>> example().minimizer(WEIGHTS)
        tensor([-0.7778,  0.2414], dtype=torch.float64)
    """
    return Quadratic([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, 0.7]]], [[1.0, 0.0], [-1.0, 0.5]])
