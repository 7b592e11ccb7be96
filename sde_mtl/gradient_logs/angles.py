r"""Angles between task gradients and their combinations Gᵀc, from the Gramian M = GGᵀ alone.

The inner product of Gᵀx and Gᵀy is :math:`x^⊤My`, so that no gradient is needed.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def cosines(gramian: Array) -> Array:
    """Cosines between the task gradients, (..., K, K); NaN where one of them is 0.

    Args:
        gramian: (..., K, K).

    Example:
        >>> cosines(np.array([[4.0, -1.0], [-1.0, 1.0]]))[0, 1].item()
        -0.5
    """
    norms = _norms(gramian)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(gramian / (norms[..., :, None] * norms[..., None, :]))


def cosines_with(gramian: Array, coefficients: Array) -> Array:
    """cos(g_i, Gᵀc), (..., K): negative where a step along −Gᵀc harms task i, NaN where a length is 0.

    Args:
        gramian: (..., K, K).
        coefficients: (K,) or (..., K), c.

    Example:
        >>> cosines_with(np.array([[1.0, -0.5], [-0.5, 1.0]]), np.array([1.0, 4.0])).round(3)
        array([-0.277,  0.971])
    """
    length = np.sqrt(_inner(gramian, coefficients, coefficients))
    with np.errstate(invalid="ignore", divide="ignore"):
        products = np.einsum("...ij,...j->...i", gramian, coefficients)
        return np.asarray(products / (_norms(gramian) * length[..., None]))


def angle(gramian: Array, x: Array, y: Array) -> Array:
    """∠(Gᵀx, Gᵀy) in radians, (...); NaN where one of them is 0.

    Args:
        gramian: (..., K, K).
        x, y: (..., K) coefficients.

    Example:
        >>> round(float(np.degrees(angle(np.eye(2), np.array([1.0, 0.0]), np.array([1.0, 1.0])))), 3)
        45.0
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = _inner(gramian, x, y) / np.sqrt(_inner(gramian, x, x) * _inner(gramian, y, y))
    return np.asarray(np.arccos(np.clip(cosine, -1, 1)))


def _norms(gramian: Array) -> Array:
    return np.asarray(np.sqrt(np.einsum("...ii->...i", gramian)))


def _inner(gramian: Array, x: Array, y: Array) -> Array:
    return np.asarray(np.einsum("...i,...ij,...j->...", x, gramian, y))
