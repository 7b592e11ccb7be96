"""Compiled: adaptive fusion (theory T9), the largest ν ≤ ν_max with (1 − ν)e_i + νj_i ≥ 0 for all tasks i.

Here e_i = g_iᵀu_en and j_i = κg_iᵀg_J. Each task allows an interval of ν; written with selections instead of branches,
so that a loop over many problems is vectorized. :mod:`optimizers.aggregators._came_grad_batched` has the same in torch.
"""

from optimizers.kernels.compiled import inlined
from optimizers.kernels.floats import UNSIGNED


@inlined
def narrowed(lower, upper, harmed, e, j):
    """The interval of ν after one more task: its ends, and whether a task is harmed whatever ν is.

    Example:
        >>> narrowed(0.0, 0.5, False, 1.0, -3.0)
        (0.0, 0.25, False)
    """
    e = 0.0 if abs(e) <= UNSIGNED * (abs(e) + abs(j)) else e
    slope = j - e
    root = -e / (slope if slope != 0.0 else 1.0)
    upper = min(upper, root) if slope < 0.0 else upper
    lower = max(lower, root) if slope > 0.0 else lower
    return lower, upper, harmed or (slope == 0.0 and e < 0.0)


@inlined
def adaptive(lower, upper, harmed, limit):
    """The ν to use: the upper end of the interval, and ``limit`` where the interval is empty.

    Example:
        >>> adaptive(0.0, 0.25, False, 0.5), adaptive(0.3, 0.25, False, 0.5)
        (0.25, 0.5)
    """
    return upper if lower <= upper and upper >= 0.0 and not harmed else limit
