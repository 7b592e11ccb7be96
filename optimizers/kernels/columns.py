"""Where a solved problem's numbers stand in its row of float64 numbers: the same for the kernels and in torch.

A row of the dual holds four numbers and two vectors of K. A row of CAME-Grad's stages goes on with three more vectors
and two more numbers at its end, so that it begins with the row of its dual.

    VALUE  RESIDUAL  ITERATIONS  RESOLVABLE │ ALPHA  MULTIPLIERS │ RECTIFIED  ENHANCED  COEFFICIENTS │ FUSION  VALID
"""

VALUE, RESIDUAL, ITERATIONS, RESOLVABLE = range(4)
"""f(α*), its relative duality gap, the supports visited, and the gap that rounding of ‖g_α‖ alone can make."""
ALPHA, MULTIPLIERS, RECTIFIED, ENHANCED, COEFFICIENTS = range(5)
"""The vectors, numbered; :func:`start` says where each begins."""
FUSION, VALID = -2, -1
"""The ν that was used, and 1 where the T5 certificate holds, else 0."""


def start(vector: int, tasks: int) -> int:
    """First column of a vector.

    Example:
        >>> start(ALPHA, 3), start(MULTIPLIERS, 3)
        (4, 7)
    """
    return 4 + vector * tasks


def dual_width(tasks: int) -> int:
    """Columns of a row of the dual.

    Example:
        >>> dual_width(3)
        10
    """
    return 4 + 2 * tasks


def stages_width(tasks: int) -> int:
    """Columns of a row of CAME-Grad's stages.

    Example:
        >>> stages_width(3)
        21
    """
    return 4 + 5 * tasks + 2
