"""Compiled: two tasks in closed form, as functions of numbers: the dual (book/dual.md, "Two tasks") and CAME-Grad.

Written with selections instead of branches, so that a loop over many problems is vectorized.
"""

import math
from collections import namedtuple

from optimizers.kernels.compiled import inlined
from optimizers.kernels.floats import EPS, ROUNDING, TINY
from optimizers.kernels.fusion import adaptive, narrowed

Stages = namedtuple("Stages", "alpha beta1 beta2 value residual resolvable u1 u2 e1 e2 nu c1 c2")
"""α_1, β_1, β_2 and f(α) of stage 1, its relative duality gap and the one that rounding of ‖g_α‖ alone can make; the
coefficients of u* and of u_en; the ν that was used; the coefficients of the update."""


@inlined
def dual_two_tasks(m11, m12, m22, b1, b2, radius):
    r"""Minimize :math:`f(α) = b^⊤α + r\sqrt{α^⊤Mα}` over α = (a, 1 − a).

    Args:
        m11, m12, m22: a Gramian of order one.
        b1, b2: products of the gradients with the trust region's centre.
        radius: r ≥ 0.

    Returns:
        a and ‖g_α‖, float64.

    Example:
        >>> dual_two_tasks(1.0, 0.0, 1.0, 0.5, 0.5, 0.25)
        (0.5, 0.7071067811865476)
    """
    first, second = m11 - m12, m12 - m22
    A = first - second
    q = b1 - b2
    apart = A > 0.0
    A = A if apart else 1.0
    # Two forms of the same determinant, the first for gradients nearly equal, the second for nearly opposite ones.
    opposite = (m12 + m22) * (m12 + m22)
    det = A * m22 - second * second if m12 > 0.0 else (m11 + 2.0 * m12 + m22) * m22 - opposite
    slack = radius * radius * A - q * q
    inside = slack > 0.0
    a = (-q * math.sqrt(max(det, 0.0) / (slack if inside else 1.0)) - second) / A
    a = min(max(a, 0.0), 1.0) if inside else (1.0 if q < 0.0 else 0.0)
    # Vertices are decided by slopes, which stay accurate where A cancels.
    a = a if apart else 0.5
    a = 0.0 if q + radius * second / math.sqrt(max(m22, TINY)) > 0.0 else a
    a = 1.0 if q + radius * first / math.sqrt(max(m11, TINY)) < 0.0 else a
    c = 1.0 - a
    length = math.sqrt(max(a * (a * m11 + c * m12) + c * (a * m12 + c * m22), 0.0))
    return a, length


@inlined
def stages_two_tasks(m11, m12, m22, w1, w2, rho, kappa, nu, weighted, adapted):
    """CAME-Grad's stages for K = 2 (arXiv:2605.22635, eq. 8–14); see :func:`optimizers.came_grad`.

    Args:
        m11, m12, m22: a Gramian of gradients, at a scale where its products neither overflow nor vanish.
        w1, w2: task weights ≥ 0, not both zero.
        rho, kappa, nu: as for :func:`optimizers.came_grad`.
        weighted: whether the trust region is centred on the weighted gradients (theory T7).
        adapted: whether ν is the largest up to ``nu`` that harms no task (theory T9).

    Returns:
        :data:`Stages`, float64.

    Example:
        >>> stages = stages_two_tasks(1.0, 0.0, 1.0, 1.0, 4.0, 0.5, 1.0, 1.0, False, False)
        >>> stages.c1, stages.c2
        (1.0, 4.0)
    """
    # Stage 1, on the gradients s_i g_i. A task of weight zero takes no part where they are weighted.
    s1, s2 = (w1 if weighted else 1.0), (w2 if weighted else 1.0)
    alone = s1 == 0.0 or s2 == 0.0
    n11, n12, n22 = s1 * s1 * m11, s1 * s2 * m12, s2 * s2 * m22
    b1, b2 = 0.5 * (n11 + n12), 0.5 * (n12 + n22)
    square = 0.5 * (b1 + b2)
    norms = 0.5 * (math.sqrt(n11) + math.sqrt(n22))
    vanishing = square <= ROUNDING * norms * norms
    centre = 0.0 if vanishing else math.sqrt(square)
    radius = rho * centre
    a, length = dual_two_tasks(n11, n12, n22, b1, b2, radius)
    longest = math.sqrt(max(n11, n22))
    a, length = ((1.0 if s2 == 0.0 else 0.0), longest) if alone else (a, length)
    pull = radius / length if length > 0.0 else 0.0
    beta1, beta2 = a * pull, (1.0 - a) * pull
    first, second = b1 + beta1 * n11 + beta2 * n12, b2 + beta1 * n12 + beta2 * n22
    value = 0.0 if vanishing else a * b1 + (1.0 - a) * b2 + radius * length
    gap = 0.0 if vanishing or alone else max(value - min(first, second), 0.0) / (centre * longest)
    resolvable = 4.0 * EPS * (longest * longest) / (length * length) if length > 0.0 else 0.0
    u1, u2 = s1 * (0.5 + beta1), s2 * (0.5 + beta2)
    norm = math.sqrt(max(u1 * (u1 * m11 + u2 * m12) + u2 * (u1 * m12 + u2 * m22), 0.0))
    # Stage 2.
    joint = math.sqrt(max(w1 * (w1 * m11 + w2 * m12) + w2 * (w1 * m12 + w2 * m22), 0.0))
    vanishing = vanishing or norm == 0.0
    u1, u2 = (0.0, 0.0) if vanishing else (u1, u2)
    speed = kappa * joint / (1.0 if vanishing else norm)
    e1, e2 = speed * u1, speed * u2
    j1, j2 = kappa * w1, kappa * w2
    # Stage 3.
    if adapted:
        lower, upper, harmed = narrowed(0.0, nu, False, e1 * m11 + e2 * m12, j1 * m11 + j2 * m12)
        lower, upper, harmed = narrowed(lower, upper, harmed, e1 * m12 + e2 * m22, j1 * m12 + j2 * m22)
        nu = adaptive(lower, upper, harmed, nu)
    c1, c2 = (1.0 - nu) * e1 + nu * j1, (1.0 - nu) * e2 + nu * j2
    return Stages(a, beta1, beta2, value, gap, resolvable, u1, u2, e1, e2, nu, c1, c2)
