"""Matrices are of the kind that their strategy's docstring proves; linear programming has the last word."""

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from optimizers.testing import strategies as s
from optimizers.testing.samplers import SAMPLERS, sample

Matrix = NDArray[np.float64]


def strongly(G: Matrix) -> bool:
    """Some w ≥ 1 has wᵀG = 0."""
    return bool(linprog(np.zeros(len(G)), A_eq=G.T, b_eq=np.zeros(G.shape[1]), bounds=(1, None)).status == 0)


def weakly(G: Matrix) -> bool:
    """Some w ≥ 0 with Σw = 1 has wᵀG = 0."""
    equations, right = np.vstack([G.T, np.ones(len(G))]), np.append(np.zeros(G.shape[1]), 1.0)
    return bool(linprog(np.zeros(len(G)), A_eq=equations, b_eq=right, bounds=(0, None)).status == 0)


@given(G=s.strongly_stationary())
def test_strongly_stationary(G: Matrix) -> None:
    assert strongly(G)


@given(G=s.weakly_stationary())
def test_weakly_stationary(G: Matrix) -> None:
    assert weakly(G)
    assert not strongly(G)


@given(G=s.non_stationary())
def test_non_stationary(G: Matrix) -> None:
    assert not weakly(G)


@given(G=s.opposite_and_a_third(tasks=(3, 5)))
def test_opposite_and_a_third(G: Matrix) -> None:
    assert weakly(G)
    assert np.linalg.matrix_rank(G[:2]) <= 1
    assert G[0] @ G[1] <= 0


@given(G=s.rank_deficient())
def test_rank_deficient(G: Matrix) -> None:
    assert np.linalg.matrix_rank(G) < len(G)


@given(G=s.duplicated())
def test_duplicated(G: Matrix) -> None:
    assert (G[0] == G[-1]).all()


@given(G=s.with_zero_rows())
def test_with_zero_rows(G: Matrix) -> None:
    assert (~G.any(axis=1)).any()
    assert weakly(G)


@given(data=st.data(), degrees=st.integers(0, 180))
def test_conflicting_at_a_chosen_angle(data: st.DataObject, degrees: int) -> None:
    G = data.draw(s.conflicting(degrees, tasks=(2, 4)))
    cosine = G[0] @ G[1] / np.linalg.norm(G[0]) / np.linalg.norm(G[1])
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))) == pytest.approx(degrees, abs=1e-5)
    if degrees in (90, 180):
        assert cosine == pytest.approx({90: 0, 180: -1}[degrees], abs=1e-15)


@given(G=s.in_conflict())
def test_in_conflict(G: Matrix) -> None:
    assert G[0] @ G[1] <= 0


@given(G=s.without_conflict())
def test_without_conflict(G: Matrix) -> None:
    assert (G @ G.T >= 0).all()


@given(G=s.badly_scaled())
def test_badly_scaled_matrices_have_exact_gramians(G: Matrix) -> None:
    scaled = G * 2.0**20
    assert (scaled == np.round(scaled)).all()
    assert np.abs(scaled).max() <= 4 * 2**20


def test_badly_scaled_matrices_are() -> None:
    """Negative control: the kind is not another name for integers."""

    def decades(G: Matrix) -> bool:
        norms = np.linalg.norm(G, axis=1)
        return bool(norms.all() and norms.max() / norms.min() > 1e4)

    assert decades(find(s.badly_scaled(), decades))


@given(data=st.data(), kind=st.sampled_from(s.EXACT))
def test_exact_kinds_are_exact(data: st.DataObject, kind: str) -> None:
    """The Gramian in integers is the Gramian in float64."""
    G = data.draw(s.KINDS[kind]()) * 2.0**20
    exact = G.astype(np.int64).astype(object) @ G.T.astype(np.int64).astype(object)
    assert np.array_equal(G @ G.T, exact.astype(np.float64))


@given(data=st.data(), kind=st.sampled_from(tuple(s.KINDS)), tasks=st.integers(2, 6))
def test_the_number_of_tasks_is_respected(data: st.DataObject, kind: str, tasks: int) -> None:
    G = data.draw(s.gradients((kind,), tasks=(tasks, tasks)))
    assert G.dtype == np.float64
    assert len(G) == tasks
    assert G.shape[1] >= 1


def test_kinds_that_need_two_tasks_say_so() -> None:
    with pytest.raises(ValueError, match=r"weakly_stationary need at least two tasks, tasks = \(1, 1\)"):
        s.gradients(("weakly_stationary",), tasks=(1, 1))
    with pytest.raises(ValueError, match="needs at least 2 tasks"):
        find(s.weakly_stationary(tasks=(1, 1)), lambda G: True)
    s.gradients(tasks=(1, 1))


def test_stationarity_checks_can_tell() -> None:
    """Negative control of the linear programs."""
    assert strongly(np.array([[1.0], [-1.0]]))
    assert not strongly(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    assert weakly(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    assert not weakly(np.eye(2))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_zoo_is_reproducible(kind: str) -> None:
    assert np.array_equal(sample(kind, 3, seed=5), sample(kind, 3, seed=5))
    assert len(sample(kind, 3, seed=5)) == 3
