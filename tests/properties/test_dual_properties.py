"""Named properties of the conflict-averse dual over the zoo of matrices and scales."""

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st

from optimizers import solve_dual

LONG = np.longdouble


def assert_optimal(G: zoo.Matrix, rho: float, tolerance: float = 1e-12) -> None:
    """f(α) − min_i g_iᵀu ≤ tolerance·‖μ‖·max‖g‖, evaluated in extended precision from the gradients.

    This bounds the distance of both the primal and the dual value from the optimum (weak duality), so
    it does not rely on anything the solver says. ``tolerance`` grows where ‖g_α‖ is so short that its
    square, of which a float64 Gramian knows ε·max‖g‖², is the limit.
    """
    solution = solve_dual(torch.from_numpy(G @ G.T), rho)
    g = G.astype(LONG)
    mean = g.mean(0)
    radius = LONG(rho) * np.sqrt(mean @ mean)
    alpha = solution.alpha.numpy().astype(LONG)
    beta = solution.multipliers.numpy().astype(LONG)
    combined = (alpha / alpha.sum()) @ g
    step = beta @ g
    length = np.sqrt(step @ step)
    step = step * min(LONG(1), radius / length) if length > 0 else step
    upper = combined @ mean + radius * np.sqrt(combined @ combined)
    lower = (g @ (mean + step)).min()
    largest = np.sqrt((g * g).sum(1).max())
    size = np.sqrt(mean @ mean) * largest
    short = np.sqrt(combined @ combined) / largest if largest > 0 else LONG(1)
    limit = tolerance + (4 * np.finfo(float).eps / short**2 if short > 1e-7 else 8 * float(short))
    assert upper - lower <= limit * size + np.finfo(float).eps * largest**2
    assert solution.converged


@given(G=zoo.gradients(max_tasks=32), rho=zoo.rhos, exponent=zoo.exponents)
def test_duality_gap_closes(G: zoo.Matrix, rho: float, exponent: int) -> None:
    assert_optimal(G * 10.0**exponent, rho)


@pytest.mark.parametrize("kind", ["independent", "low_rank", "duplicated", "collinear", "zero_row"])
@pytest.mark.parametrize("tasks", [2, 3, 8, 32])
@pytest.mark.parametrize("exponent", [-30, 0, 30])
def test_relative_gap_is_below_1e_12(kind: str, tasks: int, exponent: int) -> None:
    matrices = [zoo.sample(kind, tasks, seed) * 10.0**exponent for seed in range(20)]
    for rho in (0.1, 0.5, 0.9):
        solution = solve_dual(torch.from_numpy(np.stack([G @ G.T for G in matrices])), rho)
        assert solution.residual.max() <= 1e-12
        assert solution.converged.all()


def test_a_wrong_alpha_has_a_gap() -> None:
    """Negative control: the gap that the tests above bound is large at the uniform α."""
    G = torch.from_numpy(zoo.sample("independent", 8, 0))
    M = G @ G.T
    mean, uniform = M.mean(-1), torch.full((8,), 0.125).double()
    radius = 0.5 * mean.mean().sqrt()
    length = (uniform @ M @ uniform).sqrt()
    gap = uniform @ mean + radius * length - (mean + radius * (M @ uniform) / length).min()
    assert gap > 0.1 * mean.mean().sqrt() * M.diagonal().max().sqrt()


@given(G=zoo.gradients(), rho=zoo.rhos, exponent=zoo.exponents)
def test_alpha_lies_on_the_simplex(G: zoo.Matrix, rho: float, exponent: int) -> None:
    G = G * 10.0**exponent
    alpha = solve_dual(torch.from_numpy(G @ G.T), rho).alpha
    assert (alpha >= 0).all()
    assert alpha.sum().item() == pytest.approx(1.0, abs=1e-14)


@given(G=zoo.gradients(), rho=zoo.rhos, power=st.integers(-60, 60))
def test_scaling_by_a_power_of_two_changes_no_bit(G: zoo.Matrix, rho: float, power: int) -> None:
    M = torch.from_numpy(G @ G.T)
    plain, scaled = solve_dual(M, rho), solve_dual(M * 4.0**power, rho)
    assert torch.equal(plain.alpha, scaled.alpha)
    assert torch.equal(plain.value * 4.0**power, scaled.value)


@given(
    G=zoo.gradients(kinds=("independent", "low_rank", "collinear", "badly_scaled")),
    rho=zoo.rhos,
    seed=zoo.seeds,
)
def test_permuting_tasks_keeps_the_value(G: zoo.Matrix, rho: float, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(G))
    M = torch.from_numpy(G @ G.T)
    plain, permuted = solve_dual(M, rho), solve_dual(M[order][:, order], rho)
    size = M.diagonal().max()
    assert abs(plain.value - permuted.value) <= 1e-12 * size


@given(seed=zoo.seeds, tasks=st.integers(1, 9), rho=zoo.rhos)
def test_a_batch_is_a_loop(seed: int, tasks: int, rho: float) -> None:
    G = torch.stack([torch.from_numpy(zoo.sample(kind, tasks, seed)) for kind in ("independent", "stationary")])
    M = G @ G.mT
    together = solve_dual(M, rho)
    for index in range(2):
        alone = solve_dual(M[index], rho)
        assert (together.value[index] - alone.value).abs() <= 1e-13 * M[index].diagonal().max()
        assert torch.allclose(together.alpha[index], alone.alpha, rtol=0, atol=1e-9)


@given(seed=zoo.seeds, rho=zoo.rhos)
def test_repeating_a_task_at_the_mean_changes_nothing(seed: int, rho: float) -> None:
    """Three tasks, the third of which is their mean, constrain no more than two (g_3 ∈ hull)."""
    G = torch.from_numpy(zoo.sample("independent", 2, seed))
    three = torch.cat([G, G.mean(0, keepdim=True)])
    two_value, three_value = (solve_dual(g @ g.T, rho).value for g in (G, three))
    assert (two_value - three_value).abs() <= 1e-12 * (G @ G.T).diagonal().max()
