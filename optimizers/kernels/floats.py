"""What float64 can tell apart, and when a solver stops: the numbers that kernels and torch code share."""

EPS = 2.0**-52
"""Spacing of the numbers at 1."""
TINY = 2.0**-1022
"""The smallest normal number."""
ROUNDING = 8 * EPS
"""Relative size below which a sum of products that cancel is taken for zero."""
UNSIGNED = 16 * EPS
"""Relative size below which rounding alone may have made the sign of g_iᵀu; such a product harms no task."""
RANK = 16 * EPS
"""Times K and the largest eigenvalue: what eigenvalues of a float64 (K, K) Gramian cannot be told from 0."""
SMALL, LARGE = 1e-100, 1e100
"""Squared norms within lose nothing to underflow or overflow when they are multiplied with each other."""

SOLVED = 1e-14
"""Relative duality gap above which the compiled dual leaves a problem to :mod:`optimizers.dual.batched`."""
TOLERANCE = 1e-12
"""Relative residual, beside rounding, up to which a solver in this package has converged."""


def iteration_limit(tasks: int) -> int:
    """Linear systems after which an active-set method gives up; in practice about K are enough.

    Example:
        >>> iteration_limit(2)
        140
    """
    return 20 * tasks + 100
