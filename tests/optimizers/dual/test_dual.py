import numpy as np
import pytest
import torch
import zoo

from optimizers import oracle, solve_dual
from optimizers.dual.active_set import minimize_dual
from optimizers.dual.cone import project_cone


def test_agrees_with_cvxpy_on_500_problems() -> None:
    """Value to 1e-6 relative, over kinds, K ≤ 8, radii; primal and dual are solved independently."""
    worst = 0.0
    rng = np.random.default_rng(0)
    for problem in range(500):
        kind = zoo.WELL_POSED[problem % len(zoo.WELL_POSED)]
        tasks = int(rng.integers(2, 9))
        rho = float(rng.choice([0.1, 0.5, 0.9]))
        G = zoo.sample(kind, tasks, problem)
        solution = solve_dual(torch.from_numpy(G @ G.T), rho)
        _, dual_value = oracle.dual(G, rho)
        size = float(np.linalg.norm(G.mean(0)) * np.linalg.norm(G, axis=1).max())
        error = abs(solution.value.item() - dual_value)
        worst = max(worst, error / max(abs(dual_value), 1e-3 * size) if size > 0 else error)
        if problem % 5 == 0:
            _, primal_value = oracle.primal(G, rho)
            assert solution.value.item() == pytest.approx(primal_value, rel=1e-6, abs=1e-9 * size)
    assert worst <= 1e-6


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
def test_closed_form_and_active_set_agree_for_two_tasks(rho: float) -> None:
    G = torch.from_numpy(np.stack([zoo.sample("independent", 2, seed) for seed in range(300)]))
    M = G @ G.mT
    b = M.mean(-1)
    general = minimize_dual(M, b, rho * b.mean(-1).sqrt(), 100)
    assert torch.allclose(solve_dual(M, rho).alpha, general.alpha, rtol=0, atol=1e-10)
    interior = (general.alpha > 0).all(-1).double().mean()
    assert 0.1 < interior < 0.95, "both branches must occur"


def test_clipped_and_interior_branches_by_hand() -> None:
    """Equal norms: α = (½, ½). g_2 = 4 g_1: both constraints improve, the weaker task decides."""
    equal = torch.tensor([[1.0, -0.5], [-0.5, 1.0]])
    assert solve_dual(equal).alpha.tolist() == [0.5, 0.5]
    parallel = torch.tensor([[1.0, 4.0], [4.0, 16.0]])
    solution = solve_dual(parallel, 0.5)
    assert solution.alpha.tolist() == [1.0, 0.0]
    assert solution.value.item() == pytest.approx(1.5 * 2.5)


def test_three_tasks_by_hand() -> None:
    """Orthonormal gradients: by symmetry α = ⅓, f = ⅓ + ρ/√3·1/√3."""
    solution = solve_dual(torch.eye(3), 0.5)
    assert solution.alpha.tolist() == pytest.approx([1 / 3] * 3)
    assert solution.value.item() == pytest.approx(1 / 3 + 0.5 / 3)
    assert solution.iterations > 0
    assert solution.converged


def test_opposite_pair_and_a_third_is_projected() -> None:
    """e₁, −e₁, e₂ allow no improvement: value 0, and u is the point of the cone nearest to μ."""
    G = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]).double()
    solution = solve_dual(G @ G.T, 0.5)
    assert solution.value == 0
    assert solution.converged
    u = G.mean(0) + G.T @ solution.multipliers
    assert u.tolist() == pytest.approx([0.0, 1 / 3])


@pytest.mark.parametrize("seed", range(40))
def test_projection_agrees_with_cvxpy(seed: int) -> None:
    G = zoo.sample("opposite", 3 + seed % 5, seed)
    M = torch.from_numpy(G @ G.T)
    beta = project_cone(M[None], M.mean(-1)[None], 200)[0].numpy()
    assert (beta >= 0).all()
    u = G.mean(0) + G.T @ beta
    expected = oracle.nearest_non_conflicting(G)
    assert u == pytest.approx(expected, abs=2e-6)
    assert (G @ u).min() >= -1e-12


def test_stationary_kink_occurs_and_its_direction_is_the_projection() -> None:
    """Where the solver reports g_α = 0, u lies in the cone, inside the trust region, nearest to μ."""
    reached = 0
    for seed in range(60):
        G = zoo.sample("opposite", 4, seed)
        solution = solve_dual(torch.from_numpy(G @ G.T), 0.9)
        if solution.value != 0:
            continue
        reached += 1
        mean = G.mean(0)
        u = mean + G.T @ solution.multipliers.numpy()
        assert np.linalg.norm(u - mean) <= 0.9 * np.linalg.norm(mean)
        assert u == pytest.approx(oracle.nearest_non_conflicting(G), abs=2e-6)
    assert reached >= 10


def test_mu_zero() -> None:
    solution = solve_dual(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert solution.value == 0
    assert solution.multipliers.tolist() == [0, 0]


def test_leading_dimensions_and_empty_batches() -> None:
    M = torch.eye(3).expand(2, 5, 3, 3)
    solution = solve_dual(M)
    assert solution.alpha.shape == (2, 5, 3)
    assert solution.value.shape == solution.residual.shape == solution.iterations.shape == (2, 5)
    assert solve_dual(torch.zeros(0, 4, 4)).alpha.shape == (0, 4)
    assert solve_dual(torch.zeros(0, 2, 2)).alpha.shape == (0, 2)


@pytest.mark.parametrize(
    ("gramian", "rho", "message"),
    [
        (torch.zeros(2, 3), 0.5, r"\(\.\.\., K, K\).*got \(2, 3\)"),
        (torch.zeros(0, 0), 0.5, "K >= 1"),
        (torch.eye(2, dtype=torch.int64), 0.5, "int64"),
        (torch.tensor([[1.0, 0.0], [0.0, torch.nan]]), 0.5, "task 1 is not finite"),
        (torch.tensor([[torch.inf, 0.0], [0.0, 1.0]]), 0.5, "task 0 is not finite"),
        (torch.tensor([[1.0, 0.0], [0.0, -2.0]]), 0.5, "-2.0 for task 1"),
        (torch.eye(2), 1.0, r"rho = 1.0 must lie in \[0, 1\)"),
        (torch.eye(2), -0.1, "rho = -0.1"),
        (torch.eye(2), float("nan"), "rho = nan"),
    ],
)
def test_bad_input_is_named(gramian: torch.Tensor, rho: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_dual(gramian, rho)


def test_the_bad_problem_of_a_batch_is_named() -> None:
    M = torch.eye(2).repeat(4, 1, 1)
    M[2, 1, 1] = torch.nan
    with pytest.raises(ValueError, match=r"task 1 of problem \(2,\)"):
        solve_dual(M)


def test_a_matrix_that_is_no_gramian_is_refused() -> None:
    M = torch.tensor([[1.0, 5.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match=r"\[0, 1\] = 5 .*norms 1 and 1"):
        solve_dual(M)
    with pytest.raises(ValueError, match="cannot be an inner product"):
        solve_dual(torch.tensor([[1.0, 0.5], [-0.5, 1.0]]))
