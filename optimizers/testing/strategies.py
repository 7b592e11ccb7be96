"""Hypothesis strategies for gradient matrices.

All but :func:`real_matrices` draw small integers, for three reasons: membership of a kind is exact in floating point,
so are Gramians and their degeneracies, and counterexamples shrink to what can be checked by hand. Matrices are (K, d)
float64; *strongly stationary* means that some w > 0 has wᵀG = 0, *weakly* that some w ≥ 0, w ≠ 0 has it.
"""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from optimizers.testing.samplers import SAMPLERS, sample

Matrix = NDArray[np.float64]
Range = tuple[int, int]
MOST = 4
"""Entries lie in [-MOST, MOST]."""
TASKS: Range = (1, 5)
"""Fewest and most tasks drawn by default."""
WIDTH: Range = (1, 4)
"""Fewest and most columns."""


def _rows(draw: st.DrawFn, count: int, width: Range) -> Matrix:
    """(count, d) with d in ``width``; drawn column by column, so that columns are what shrinking removes."""
    column = st.tuples(*[st.integers(-MOST, MOST)] * count)
    columns = draw(st.lists(column, min_size=width[0], max_size=width[1]))
    return np.array(columns, dtype=np.float64).reshape(len(columns), count).T.copy()


def _positive(draw: st.DrawFn, count: int, most: int = 3) -> Matrix:
    return np.array(draw(st.lists(st.integers(1, most), min_size=count, max_size=count)), dtype=np.float64)


def _tasks(draw: st.DrawFn, tasks: Range, least: int = 1) -> int:
    low, high = max(tasks[0], least), tasks[1]
    if low > high:
        raise ValueError(f"tasks = {tasks}: this kind of matrix needs at least {least} tasks")
    return draw(st.integers(low, high))


@st.composite
def integer_matrices(draw: st.DrawFn, tasks: Range = TASKS, width: Range = WIDTH) -> Matrix:
    """Any matrix of small integers; nothing is promised of its stationarity."""
    return _rows(draw, _tasks(draw, tasks), width)


@st.composite
def real_matrices(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """A matrix of :data:`optimizers.testing.samplers.SAMPLERS`, whose docstrings say of what kind."""
    return sample(draw(st.sampled_from(tuple(SAMPLERS))), _tasks(draw, tasks), draw(st.integers(0, 2**32 - 1)))


@st.composite
def strongly_stationary(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """Strongly stationary: the last row is −Σ w_i g_i over the others with integers w_i > 0, so (w, 1)ᵀG = 0 and
    (w, 1) > 0. One task alone has the zero gradient."""
    count = _tasks(draw, tasks)
    rows = _rows(draw, count - 1, WIDTH)
    return np.vstack([rows, -_positive(draw, count - 1) @ rows])


@st.composite
def weakly_stationary(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """Weakly but not strongly stationary. The first rows are strongly stationary and have 0 in the last column: their
    w > 0, continued by zeros, has wᵀG = 0. The other rows, one at least, have p_i > 0 there: wᵀG = 0 with w ≥ 0 makes
    Σ w_i p_i = 0, hence w_i = 0 for them, so no w > 0 will do."""
    count = _tasks(draw, tasks, least=2)
    block = draw(strongly_stationary(tasks=(1, count - 1)))
    others = _rows(draw, count - len(block), (block.shape[1], block.shape[1]))
    slopes = np.concatenate([np.zeros(len(block)), _positive(draw, len(others))])
    return np.hstack([np.vstack([block, others]), slopes[:, None]])


@st.composite
def non_stationary(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """Not even weakly stationary: the last column p is positive, so w ≥ 0, w ≠ 0 gives (wᵀG)_d = wᵀp > 0."""
    count = _tasks(draw, tasks)
    return np.hstack([_rows(draw, count, (0, 3)), _positive(draw, count)[:, None]])


@st.composite
def rank_deficient(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """Rows are integer combinations of min(2, K−1) vectors, so the rank is less than K."""
    count = _tasks(draw, tasks)
    rank = min(2, count - 1)
    return _rows(draw, count, (rank, rank)) @ _rows(draw, rank, WIDTH)


@st.composite
def badly_scaled(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """Row i is an integer row times 2^(−e_i), 0 ≤ e_i ≤ 20: norms six decades apart, and still exact."""
    G = draw(integer_matrices(tasks=tasks))
    exponents = draw(st.lists(st.integers(0, 20), min_size=len(G), max_size=len(G)))
    return np.asarray(G * 2.0 ** -np.array(exponents)[:, None])


@st.composite
def duplicated(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """The last row repeats the first; a single task does so trivially."""
    G = draw(integer_matrices(tasks=tasks))
    G[-1] = G[0]
    return G


@st.composite
def with_zero_rows(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """At least one row is zero, hence weakly stationary (w = e_i)."""
    G = draw(integer_matrices(tasks=tasks))
    G[sorted(draw(st.sets(st.integers(0, len(G) - 1), min_size=1)))] = 0
    return G


@st.composite
def opposite_and_a_third(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """g_1 = −c g_0 with c ∈ {1, 2, 3}, so w = (c, 1, 0 …) makes it weakly stationary; the others are arbitrary."""
    count = _tasks(draw, tasks, least=2)
    G = draw(integer_matrices(tasks=(count, count)))
    G[1] = -draw(st.integers(1, 3)) * G[0]
    return G


@st.composite
def conflicting(draw: st.DrawFn, degrees: float, tasks: Range = (2, 2)) -> Matrix:
    """The angle between g_0 = (a, 0, …) and g_1 = b(cos φ, sin φ, 0, …), a, b > 0, is φ; the others are arbitrary.

    Exact at 90° and 180°, elsewhere to rounding.
    """
    count = _tasks(draw, tasks, least=2)
    G = draw(integer_matrices(tasks=(count, count), width=(2, WIDTH[1])))
    first, second = _positive(draw, 2, most=2 * MOST)
    exact = {90.0: (0.0, 1.0), 180.0: (-1.0, 0.0)}
    cosine, sine = exact.get(float(degrees), (np.cos(np.radians(degrees)), np.sin(np.radians(degrees))))
    G[:2] = 0
    G[0, 0], G[1, 0], G[1, 1] = first, second * cosine, second * sine
    return G


@st.composite
def in_conflict(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """:func:`conflicting` at an angle from 90° to 180° in steps of 15°."""
    count = _tasks(draw, tasks, least=2)
    return draw(conflicting(15.0 * draw(st.integers(6, 12)), tasks=(count, count)))


@st.composite
def without_conflict(draw: st.DrawFn, tasks: Range = TASKS) -> Matrix:
    """No negative entry, so no negative inner product."""
    return np.abs(draw(integer_matrices(tasks=tasks)))


@st.composite
def task_weights(draw: st.DrawFn, tasks: int) -> Matrix:
    """Integers from 1 to 5, one a task."""
    return _positive(draw, tasks, most=5)


KINDS: dict[str, Callable[..., st.SearchStrategy[Matrix]]] = {
    strategy.__name__: strategy
    for strategy in (
        integer_matrices, non_stationary, in_conflict, strongly_stationary, weakly_stationary, opposite_and_a_third,
        rank_deficient, duplicated, with_zero_rows, badly_scaled, without_conflict, real_matrices,
    )
}  # fmt: skip
NEED_TWO = ("weakly_stationary", "opposite_and_a_third", "in_conflict")
EXACT = tuple(kind for kind in KINDS if kind not in ("in_conflict", "real_matrices"))
"""Kinds whose Gramian is exact in float64."""


def gradients(kinds: tuple[str, ...] = tuple(KINDS), tasks: Range = TASKS) -> st.SearchStrategy[Matrix]:
    """A matrix of one of the kinds; those that need two tasks are left out where ``tasks`` excludes them.

    Raises:
        ValueError: for an unknown kind, or where no kind is left.

    Example:
        >>> gradients(("conflicting",))
        Traceback (most recent call last):
        ...
        ValueError: 'conflicting' is no kind of matrix; known: integer_matrices, non_stationary, in_conflict,
        strongly_stationary, weakly_stationary, opposite_and_a_third, rank_deficient, duplicated, with_zero_rows,
        badly_scaled, without_conflict, real_matrices
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of matrix; known: {', '.join(KINDS)}")
    possible = [KINDS[kind](tasks=tasks) for kind in kinds if tasks[1] > 1 or kind not in NEED_TWO]
    if not possible:
        raise ValueError(f"kinds {', '.join(kinds)} need at least two tasks, tasks = {tasks}")
    return st.one_of(possible)
