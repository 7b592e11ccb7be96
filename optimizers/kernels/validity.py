"""Compiled: whether a matrix can be a Gramian; :func:`optimizers.gradients.checks.check_gramian` names what is not."""

import math

from optimizers.kernels.compiled import kernel
from optimizers.kernels.floats import TINY


@kernel
def is_gramian(M, norms, tolerance):
    """Finite, symmetric, diagonal ≥ 0, entries at most ‖g_i‖‖g_j‖, the last two up to a relative tolerance.

    Args:
        M: (K, K) float64.
        norms: (K,) float64, filled with ‖g_i‖ as far as it gets.
        tolerance: of :func:`optimizers.gradients.checks.gramian_tolerance`.

    Example:
        >>> import numpy as np
        >>> is_gramian(np.eye(2), np.empty(2), 1e-8), is_gramian(1 - 2 * np.eye(2), np.empty(2), 1e-8)
        (True, False)
    """
    tasks = len(M)
    for i in range(tasks):
        if not (M[i, i] >= 0.0 and M[i, i] < math.inf):
            return False
        norms[i] = math.sqrt(M[i, i])
    for i in range(tasks):
        longest = (1.0 + tolerance) * norms[i]
        for j in range(i):
            largest = longest * norms[j] + TINY
            # Written so that NaN fails.
            if not (abs(M[i, j]) <= largest and abs(M[j, i]) <= largest):
                return False
            if not abs(M[i, j] - M[j, i]) <= tolerance * largest:
                return False
    return True
