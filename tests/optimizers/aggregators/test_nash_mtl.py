"""Nash-MTL: its equation, the bargaining problem behind it, and where there is no agreement."""

import importlib
from functools import partial

import cvxpy
import numpy as np
import pytest
import torch
import zoo
from hypothesis import assume, given
from hypothesis import strategies as st

from optimizers import mgda
from optimizers.aggregators._nash_mtl import nash_mtl, solve_nash
from optimizers.errors import SolverWarning

LONG = np.longdouble
SOLVABLE = ("independent", "duplicated", "nearly_duplicated", "badly_scaled", "zero_row")


def residual(G: zoo.Matrix, alpha: zoo.Matrix, powers: zoo.Matrix) -> float:
    """max |α_i g_iᵀ(Gᵀα)/p_i − 1| over the tasks that take part, in extended precision and without a Gramian."""
    g, a = G.astype(LONG), alpha.astype(LONG)
    part = (G != 0).any(1) & (powers > 0)
    return float(np.abs((a * (g @ (a @ g)))[part] / powers[part] - 1).max(initial=0))


def test_golden_values_by_hand() -> None:
    """Orthogonal: α_i = √p_i/‖g_i‖. K equal cosines c: α_i = 1/(‖g_i‖√(1 + (K−1)c))."""
    M = torch.diag(torch.tensor([4.0, 9.0, 0.25]))
    assert nash_mtl(M).tolist() == pytest.approx([1 / 2, 1 / 3, 2])
    assert nash_mtl(M, [1.0, 4.0, 9.0], asymmetric=True).tolist() == pytest.approx([1 / 2, 2 / 3, 6])
    for cosine, norms in ((0.8, (5.0, 2.0)), (-0.6, (1.0, 3.0)), (-0.3, (1.0, 2.0, 4.0)), (0.5, (1.0, 1.0, 8.0))):
        n = torch.tensor(norms).double()
        C = torch.full((len(n), len(n)), cosine, dtype=torch.float64).fill_diagonal_(1)
        expected = [1 / (x * (1 + (len(n) - 1) * cosine) ** 0.5) for x in norms]
        assert nash_mtl(C * n[:, None] * n).tolist() == pytest.approx(expected, rel=1e-14)


def test_a_golden_value_with_powers() -> None:
    """α = (1, 1) solves Mα = p/α for p = M1: (5, 2) for ((4,1),(1,1)), (1, 7) for ((3,−2),(−2,9))."""
    for M in ([[4.0, 1.0], [1.0, 1.0]], [[3.0, -2.0], [-2.0, 9.0]]):
        matrix = torch.tensor(M)
        assert nash_mtl(matrix, matrix.sum(-1), asymmetric=True).tolist() == pytest.approx([1, 1], rel=1e-14)


@given(G=zoo.gradients(kinds=SOLVABLE), exponent=zoo.exponents, asymmetric=st.booleans(), seed=zoo.seeds)
def test_the_equation_is_solved(G: zoo.Matrix, exponent: int, asymmetric: bool, seed: int) -> None:
    G = G * 10.0**exponent
    weights = np.random.default_rng(seed).uniform(0.01, 4, size=len(G))
    solution = solve_nash(torch.from_numpy(G @ G.T), torch.from_numpy(weights), asymmetric=asymmetric)
    assume(not solution.stationary)
    powers = weights if asymmetric else np.ones(len(G))
    assert solution.converged
    assert solution.residual <= 1e-11
    assert residual(G, solution.alpha.numpy(), powers) <= 1e-11
    assert solution.iterations <= 25


@given(G=zoo.gradients(kinds=(*SOLVABLE, "low_rank", "collinear")), asymmetric=st.booleans(), seed=zoo.seeds)
def test_every_task_improves_and_the_length_is_that_of_the_powers(G: zoo.Matrix, asymmetric: bool, seed: int) -> None:
    """g_iᵀu = p_i/α_i > 0, ‖u‖² = Σp."""
    weights = np.random.default_rng(seed).uniform(0.1, 4, size=len(G))
    M = torch.from_numpy(G @ G.T)
    solution = solve_nash(M, torch.from_numpy(weights), asymmetric=asymmetric)
    assume(not solution.stationary)
    u = solution.alpha.numpy() @ G
    part = (G != 0).any(1)
    assert (G[part] @ u > 0).all()
    assert u @ u == pytest.approx((weights if asymmetric else np.ones(len(G)))[part].sum(), rel=1e-6)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_it_solves_the_bargaining_problem(asymmetric: bool) -> None:
    """Against cvxpy on max Σp_i log g_iᵀu, ‖u‖ ≤ 1, which knows neither the Gramian nor the equation."""
    for kind in ("independent", "duplicated"):
        for seed in range(4):
            G = zoo.sample(kind, 4, seed)
            powers = np.array([1.0, 4.0, 0.5, 2.0]) if asymmetric else np.ones(4)
            found = nash_mtl(torch.from_numpy(G @ G.T), torch.from_numpy(powers), asymmetric=asymmetric).numpy() @ G
            u = cvxpy.Variable(G.shape[1])
            utility = powers @ cvxpy.log(G @ u)
            problem = cvxpy.Problem(cvxpy.Maximize(utility), [cvxpy.norm(u) <= 1])
            problem.solve(cvxpy.CLARABEL)
            found = found / np.linalg.norm(found)
            assert powers @ np.log(G @ found) >= problem.value - 1e-7
            assert found == pytest.approx(u.value, abs=1e-4)
            other = mgda(torch.from_numpy(G @ G.T)).numpy() @ G
            assert powers @ np.log(G @ other / np.linalg.norm(other)) < problem.value - 1e-3, "negative control"


@given(G=zoo.gradients(kinds=SOLVABLE, max_tasks=6), seed=zoo.seeds)
def test_the_update_does_not_depend_on_the_length_of_any_gradient(G: zoo.Matrix, seed: int) -> None:
    """Nor on task weights, which are lengths, unless they are bargaining powers."""
    rng = np.random.default_rng(seed)
    factors, weights = 10.0 ** rng.uniform(-9, 9, size=(len(G), 1)), rng.uniform(0.1, 9, size=len(G))
    M = torch.from_numpy(G @ G.T)
    u = nash_mtl(M).numpy() @ G
    scaled = G * factors
    assert nash_mtl(torch.from_numpy(scaled @ scaled.T)).numpy() @ scaled == pytest.approx(u, abs=1e-7)
    assert torch.equal(nash_mtl(M, torch.from_numpy(weights)), nash_mtl(M))


def test_powers_matter() -> None:
    """Negative control of the above, and the direction they move it in."""
    M = torch.tensor([[1.0, -0.5], [-0.5, 1.0]]).double()
    gains = M @ nash_mtl(M, [1.0, 4.0], asymmetric=True)
    assert gains[1] > 1.5 * gains[0]
    assert (M @ nash_mtl(M, [1.0, 4.0]))[1] == pytest.approx(float((M @ nash_mtl(M))[0]))


def test_no_agreement_gives_zero() -> None:
    """Opposite, or 0 inside the hull, also of a subset of the tasks; zero rows and weights take no part."""
    for rows, weights, coefficients in (
        ([[1, 0], [-2, 0]], None, [0, 0]),
        ([[1, 0], [-1, 0], [0, 1]], None, [0, 0, 0]),
        ([[1, 0], [-1, 0], [0, 1]], [1.0, 0.0, 1.0], [1, 0, 1]),
        ([[4, 0], [0, 0]], None, [1 / 4, 0]),
        ([[1, 0], [1, 0]], None, [0.5**0.5, 0.5**0.5]),
        ([[0, 0], [0, 0]], None, [0, 0]),
    ):
        G = torch.tensor(rows).double()
        assert nash_mtl(G @ G.T, weights).tolist() == pytest.approx(coefficients, abs=1e-14), rows


@pytest.mark.parametrize("kind", ["stationary", "opposite"])
def test_stationary_points_of_the_zoo_are_recognized(kind: str) -> None:
    for tasks in (2, 3, 5, 9):
        G = np.stack([zoo.sample(kind, tasks, seed) for seed in range(30)])
        solution = solve_nash(torch.from_numpy(G @ G.transpose(0, 2, 1)))
        assert solution.stationary.all()
        assert (solution.alpha == 0).all()


@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_near_stationary_points_the_residual_is_certified(distance: float) -> None:
    """0 at the given distance from the hull: solved as far as a Gramian knows it, ε/distance², and so reported."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        G = rng.normal(size=(5, 9))
        G -= rng.dirichlet(np.ones(5)) @ G
        normal = np.linalg.svd(G)[2][-1]
        G += distance * normal
        M = torch.from_numpy(G @ G.T)
        v = mgda(M).numpy() @ G
        assert np.linalg.norm(v) <= 1.01 * distance
        solution = solve_nash(M)
        assert solution.converged
        assert not solution.stationary
        assert solution.iterations <= 60
        assert residual(G, solution.alpha.numpy(), np.ones(5)) <= 1e-12 + 4000 * np.finfo(float).eps / distance**2


@pytest.mark.parametrize("decades", [3, 6, 9])
def test_powers_of_very_different_size(decades: int) -> None:
    rng = np.random.default_rng(decades)
    G = rng.normal(size=(50, 5, 8)) + 0.3
    powers = torch.from_numpy(10.0 ** -rng.uniform(0, decades, size=(50, 5)))
    solution = solve_nash(torch.from_numpy(G @ G.transpose(0, 2, 1)), powers, asymmetric=True)
    assert solution.converged.all()
    assert solution.residual.max() <= 1e-15 * 10.0**decades * 100
    assert solution.iterations.max() <= 40


def test_what_is_not_solved_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault injection: no Newton step is allowed."""
    M = torch.tensor([[1.0, -0.5], [-0.5, 9.0]])
    C = torch.stack([torch.eye(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.tensor([[1.0, -0.9], [-0.9, 1.0]])])
    three = torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.0, -0.7], [0.0, -0.7, 1.0]])
    assert solve_nash(M).converged
    assert solve_nash(C, max_iterations=0).converged.tolist() == [True] * 3, "K = 2 starts at the solution"
    unsolved = solve_nash(three, max_iterations=0)
    assert not unsolved.converged
    assert unsolved.residual > 0.1
    module = importlib.import_module("optimizers.aggregators._nash_mtl")
    monkeypatch.setattr(module, "solve_nash", partial(solve_nash, max_iterations=0))
    with pytest.warns(SolverWarning, match=r"relative residual of .* only, in 1 problem"):
        nash_mtl(torch.stack([three, torch.eye(3)]))
