"""What float64 can tell apart: the numbers that every tolerance is made of."""

EPS = 2.0**-52
"""Spacing of the numbers at 1."""
TINY = 2.0**-1022
"""The smallest normal number."""
ROUNDING = 8 * EPS
"""Relative size below which a sum of products that cancel is taken for zero."""
SMALL, LARGE = 1e-100, 1e100
"""Squared norms within lose nothing to underflow or overflow when they are multiplied with each other."""
