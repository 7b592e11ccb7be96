"""Linear scalarization, MGDA and CAGrad: golden values, oracles, and that the methods differ."""

import importlib
from collections.abc import Callable
from functools import partial
from itertools import combinations

import cvxpy
import numpy as np
import pytest
import torch
import zoo
from hypothesis import given
from torch import Tensor

from optimizers import cagrad, came_grad, came_grad_coefficients, gramian, linear, mgda, oracle, pcgrad
from optimizers.aggregators._aligned_mtl import aligned_mtl
from optimizers.aggregators._imtl_g import imtl_g
from optimizers.aggregators._nash_mtl import nash_mtl
from optimizers.errors import SolverWarning

LONG = np.longdouble
METHODS: dict[str, Callable[..., Tensor]] = {
    "linear": linear,
    "mgda": mgda,
    "pcgrad": pcgrad,
    "pcgrad, reversed": partial(pcgrad, order="reversed"),
    "pcgrad, expectation": partial(pcgrad, order="expectation"),
    "cagrad": cagrad,
    "imtl-g": imtl_g,
    "aligned-mtl": aligned_mtl,
    "nash-mtl": nash_mtl,
    "nash-mtl, asymmetric": partial(nash_mtl, asymmetric=True),
    "came-grad": came_grad_coefficients,
    "came-grad, weighted centre": partial(came_grad_coefficients, center="weighted"),
    "came-grad, adaptive fusion": partial(came_grad_coefficients, fusion="adaptive", nu=0.9),
}


def gap(G: zoo.Matrix, alpha: zoo.Matrix) -> float:
    """‖v‖² − min_i g_iᵀv ≥ ‖v − v*‖² beside max‖g_i‖², from the gradients in extended precision."""
    g, a = G.astype(LONG), alpha.astype(LONG)
    v = (a / a.sum()) @ g
    largest = (g * g).sum(1).max()
    return float((v @ v - (g @ v).min()) / largest) if largest > 0 else 0.0


@given(G=zoo.gradients(max_tasks=32), exponent=zoo.exponents)
def test_mgda_harms_no_task_and_is_the_nearest_point(G: zoo.Matrix, exponent: int) -> None:
    """Optimality of the minimum-norm point v: g_iᵀv ≥ ‖v‖² for every i."""
    G = G * 10.0**exponent
    alpha = mgda(torch.from_numpy(G @ G.T)).numpy()
    assert alpha.sum() == pytest.approx(1, abs=1e-14)
    assert (alpha >= 0).all()
    assert gap(G, alpha) <= 1e-14


def near_stationary(rng: np.random.Generator) -> zoo.Matrix:
    """0 lies 1e-1 … 1e-8 from the hull."""
    G = rng.normal(size=(rng.integers(2, 12), 15))
    return np.asarray(G - rng.dirichlet(np.ones(len(G))) @ G + 10.0 ** -rng.integers(1, 9) * rng.normal(size=15))


def ties(rng: np.random.Generator) -> zoo.Matrix:
    """Entries −1, 0, 1: equal products, duplicates, opposites and faces with many tasks."""
    return rng.integers(-1, 2, size=(rng.integers(2, 12), 4)).astype(float)


def clusters(rng: np.random.Generator) -> zoo.Matrix:
    """Twelve gradients in three groups that differ in the ninth digit."""
    return np.asarray(np.repeat(rng.normal(size=(3, 6)), 4, 0) * (1 + 1e-9 * rng.normal(size=(12, 1))))


def crowd(rng: np.random.Generator) -> zoo.Matrix:
    """64 gradients in the plane: the hull has few vertices."""
    return rng.normal(size=(64, 2)) + 1.5


@pytest.mark.parametrize("sampler", [near_stationary, ties, clusters, crowd])
def test_mgda_is_exact_on_hard_cases(sampler: Callable[[np.random.Generator], zoo.Matrix]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        G = sampler(rng)
        assert gap(G, mgda(torch.from_numpy(G @ G.T)).numpy()) <= 1e-14


def test_the_gap_tells_a_wrong_point() -> None:
    """Negative control: the uniform α, and the right one of other gradients."""
    G, other = (zoo.sample("independent", 5, seed) for seed in (0, 1))
    assert gap(G, np.full(5, 0.2)) > 0.1
    assert gap(G, mgda(torch.from_numpy(other @ other.T)).numpy()) > 0.1


def test_mgda_by_hand() -> None:
    """A vertex, an edge beside a third task that is satisfied, a face: α_i ∝ 1/‖g_i‖² where orthogonal."""
    for rows, weights, coefficients in (
        ([[1, 0], [3, 1]], None, [1, 0]),
        ([[1, 0], [0, 2], [2, 2]], None, [4 / 5, 1 / 5, 0]),
        ([[1, 0, 0], [0, 2, 0], [0, 0, 3]], None, [36 / 49, 9 / 49, 4 / 49]),
        ([[1, 0], [0, 2]], [2.0, 1.0], [1, 1 / 2]),
        ([[1, 0], [-3, 0]], None, [3 / 4, 1 / 4]),
        ([[1, 0], [0, 0]], None, [0, 1]),
        ([[1, 0], [0, 1]], [1.0, 0.0], [0, 0]),
    ):
        G = torch.tensor(rows).double()
        assert mgda(G @ G.T, weights).tolist() == pytest.approx(coefficients, abs=1e-15), rows


def test_mgda_agrees_with_cvxpy() -> None:
    for seed in range(20):
        G = zoo.sample("independent", 5, seed)
        alpha = cvxpy.Variable(5, nonneg=True)
        cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(G.T @ alpha)), [cvxpy.sum(alpha) == 1]).solve(cvxpy.CLARABEL)
        assert mgda(torch.from_numpy(G @ G.T)).numpy() @ G == pytest.approx(alpha.value @ G, abs=1e-4)


def test_mgda_reports_what_it_did_not_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault injection: the active-set method stops after one round."""
    module = importlib.import_module("optimizers.aggregators._mgda")
    whole = module.minimize_dual
    monkeypatch.setattr(module, "minimize_dual", lambda M, b, r, most: whole(M, b, r, 1))
    with pytest.warns(SolverWarning, match=r"minimum-norm point of 1 problem\(s\) has an optimality gap of up to"):
        mgda(torch.eye(3))


def test_cagrad_by_hand() -> None:
    """g = (1,0), (0,4), c = ½: u = g₀ + c‖g₀‖e₁, as the second task is ahead: g₀ = (½, 2), ‖g₀‖² = 17/4."""
    assert cagrad(torch.eye(2), c=0.5).tolist() == pytest.approx([0.75, 0.75])
    expected = [0.5 + 0.5 * 4.25**0.5, 2.0]
    assert cagrad(torch.eye(2), [1.0, 4.0], c=0.5).tolist() == pytest.approx(expected)
    assert cagrad(torch.eye(2), [1.0, 0.0], c=0.5).tolist() == pytest.approx([0.75, 0.0])
    assert cagrad(torch.eye(2), [1.0, 4.0], c=0.0).tolist() == pytest.approx([0.5, 2.0]), "the mean"
    with pytest.raises(ValueError, match=r"c = 1.0 must lie in \[0, 1\)"):
        cagrad(torch.eye(2), c=1.0)


def test_cagrad_is_the_first_stage_of_came_grad() -> None:
    """Against the cone program, and against came_grad with equal weights."""
    weights = np.array([1.0, 4.0, 0.3, 2.0])
    for seed in range(20):
        G = zoo.sample("independent", 4, seed)
        direction = cagrad(torch.from_numpy(G @ G.T), c=0.4).numpy() @ G
        assert direction == pytest.approx(oracle.primal(G, 0.4)[0], abs=5e-5)
        assert direction == pytest.approx(came_grad(torch.from_numpy(G), rho=0.4).rectified.numpy(), abs=1e-12)
        weighted = cagrad(torch.from_numpy(G @ G.T), torch.from_numpy(weights), c=0.4).numpy() @ G
        assert weighted == pytest.approx(oracle.primal(weights[:, None] * G, 0.4)[0], abs=2e-4)


@given(G=zoo.gradients(kinds=("independent", "low_rank", "duplicated", "zero_row")), c=zoo.rhos, seed=zoo.seeds)
def test_cagrad_descends_the_weighted_loss_and_harms_nobody_where_the_mean_does_not(
    G: zoo.Matrix, c: float, seed: int
) -> None:
    """g_Jᵀu ≥ (1 − c)‖g_J‖²/K, and the worst product is no less than the mean's."""
    weights = np.random.default_rng(seed).uniform(0.1, 4, size=len(G))
    u = cagrad(torch.from_numpy(G @ G.T), torch.from_numpy(weights), c=c).numpy() @ G
    joint = weights @ G
    size = (np.linalg.norm(G, axis=1) * weights).max() ** 2
    assert joint @ u >= (1 - c) * (joint @ joint) / len(G) - 1e-9 * size
    products = weights * (G @ u), weights * (G @ joint) / len(G)
    assert products[0].min() >= products[1].min() - 1e-9 * size


@pytest.mark.parametrize("method", METHODS)
def test_all_share_one_signature(method: str) -> None:
    M = gramian(torch.randn(3, 2, 4, 6))
    aggregator = METHODS[method]
    assert aggregator(M, [1.0, 2.0, 0.5, 1.0]).shape == (3, 2, 4)
    assert aggregator(M.float()).dtype == torch.float64
    assert aggregator(M[0, 0], torch.ones(5, 4)).shape == (5, 4), "weights may be the batch"
    assert torch.allclose(aggregator(M)[1, 0], aggregator(M[1, 0]), atol=1e-9)
    assert aggregator(M[:0]).shape == (0, 2, 4)
    with pytest.raises(ValueError, match=r"task_weights\[1\] = -1.0"):
        aggregator(M, [1.0, -1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"gramian must have shape \(..., K, K\)"):
        aggregator(torch.ones(2, 3))
    with pytest.raises(ValueError, match="gradient of task 1 is not finite"):
        aggregator(torch.diag(torch.tensor([1.0, float("nan")])))
    with pytest.raises(ValueError, match="must be real floating point"):
        aggregator(torch.eye(2, dtype=torch.int64))


DIFFERENCE = 0.1
"""Least distance between the unit directions of any two methods in the test below."""


def test_the_methods_differ() -> None:
    """Four conflicting tasks of different lengths, weighted: every pair of methods has another direction."""
    G = np.array([[1, 1, -1, 2], [-2, -2, 1, 1], [2, -2, 2, 0], [1, 1, 2, -2]], dtype=float)
    M = torch.from_numpy(G @ G.T)
    updates = {name: method(M, [1.0, 3.0, 0.5, 2.0]).numpy() @ G for name, method in METHODS.items()}
    units = {name: u / np.linalg.norm(u) for name, u in updates.items()}
    for a, b in combinations(units, 2):
        assert np.linalg.norm(units[a] - units[b]) >= DIFFERENCE, (a, b)


def test_two_names_for_one_method_do_not_differ() -> None:
    """Negative control: without magnitude and fusion CAME-Grad is CAGrad up to its length."""
    M = gramian(torch.randn(4, 7).double())
    same = came_grad_coefficients(M, [1.0, 3.0, 0.5, 2.0], rho=0.5, nu=0.0, center="weighted")
    other = cagrad(M, [1.0, 3.0, 0.5, 2.0], c=0.5)
    assert torch.allclose(same / same.norm(), other / other.norm(), atol=1e-12)
