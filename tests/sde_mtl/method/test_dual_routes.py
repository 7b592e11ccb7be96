import numpy as np
import pytest

from sde_mtl.method import dual_routes
from sde_mtl.method.stage_checks import check


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_solver_agrees_with_all_supports(tasks: int) -> None:
    rng = np.random.default_rng(tasks)
    for _ in range(20):
        G = rng.normal(size=(tasks, 8)) * np.exp(rng.normal(size=(tasks, 1)))
        assert dual_routes.by_solver(G) == pytest.approx(dual_routes.by_enumeration(G), abs=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_exact_routes_close_the_gap(scale: float) -> None:
    for route in (dual_routes.by_solver, dual_routes.by_enumeration):
        assert dual_routes.gaps(route, tasks=4, scale=scale, problems=5).max() < 1e-14


def test_cvxpy_comes_close() -> None:
    assert dual_routes.gaps(dual_routes.by_cvxpy, tasks=3, problems=3).max() < 1e-4


def test_slsqp_works_at_size_one_and_fails_silently_elsewhere() -> None:
    assert dual_routes.gaps(dual_routes.by_slsqp, tasks=4, problems=5).max() < 1e-2
    assert dual_routes.gaps(dual_routes.by_slsqp, tasks=4, scale=1e-6, problems=5).min() > 1e-2


def test_gap_sees_a_wrong_answer() -> None:
    G = np.array([[1.0, 0.0], [-0.6, 0.9]])
    right = dual_routes.by_solver(G)
    assert dual_routes.gap(G, right) < 1e-15
    assert dual_routes.gap(G, right + np.array([0.01, -0.01])) > 1e-3


def test_every_promise_of_the_stages_holds_and_every_control_is_rejected() -> None:
    rows = check(seed=1, problems=40)
    assert [row.claim for row in rows if not row.passed] == []
    assert sum(row.control for row in rows) == 3
