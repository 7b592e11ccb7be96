"""Named invariants of CAME-Grad over the zoo of matrices and scales."""

import numpy as np
import pytest
import torch
import zoo
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from optimizers import CAMEGradResult, came_grad, came_grad_coefficients, gramian, linear

EPS = torch.finfo(torch.float64).eps
GENERIC = ("independent", "low_rank", "duplicated", "zero_row", "collinear", "badly_scaled")


@st.composite
def problems(
    draw: st.DrawFn, *, kinds: tuple[str, ...] = tuple(zoo.SAMPLERS), max_tasks: int = 8
) -> tuple[Tensor, list[float]]:
    """Gradients of the zoo at one of 61 scales, and task weights."""
    G = draw(zoo.gradients(kinds=kinds, max_tasks=max_tasks)) * 10.0 ** draw(zoo.exponents)
    return torch.from_numpy(G), draw(zoo.task_weights(len(G)))


def largest(G: Tensor) -> float:
    return float(torch.linalg.vector_norm(G, dim=-1).max())


def norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x))


def unresolved(G: Tensor, *vectors: Tensor) -> bool:
    """Whether one of the vectors is so short beside max‖g_i‖ that a float64 Gramian says little of it."""
    return any(norm(v) <= 1e-5 * largest(G) for v in vectors)


def same_vector(a: Tensor, b: Tensor, *, size: float, tolerance: float = 1e-9) -> bool:
    return norm(a - b) <= tolerance * size


@given(problem=problems(kinds=GENERIC), rho=zoo.rhos)
def test_rectified_lies_on_the_boundary_of_the_trust_region(problem: tuple[Tensor, list[float]], rho: float) -> None:
    G, weights = problem
    result = came_grad(G, weights, rho=rho)
    combined = result.alpha @ G
    assume(not unresolved(G, result.mean, combined))
    radius = rho * norm(result.mean)
    limit = 1e-10 + 64 * EPS * (largest(G) / norm(combined)) ** 2 + 64 * EPS * (largest(G) / norm(result.mean)) ** 2
    assert norm(result.rectified - result.mean) == pytest.approx(radius, rel=limit, abs=limit * norm(result.mean))


@given(problem=problems(), rho=zoo.rhos)
def test_rectified_never_leaves_the_trust_region(problem: tuple[Tensor, list[float]], rho: float) -> None:
    G, weights = problem
    result = came_grad(G, weights, rho=rho)
    assume(not unresolved(G, result.mean))
    rounding = 1e-9 * largest(G)
    assert norm(result.rectified - result.mean) <= rho * norm(result.mean) + rounding


@given(problem=problems(), rho=zoo.rhos, kappa=zoo.kappas, nu=zoo.nus)
def test_enhanced_has_the_length_of_kappa_times_joint(
    problem: tuple[Tensor, list[float]], rho: float, kappa: float, nu: float
) -> None:
    G, weights = problem
    result = came_grad(G, weights, rho=rho, kappa=kappa, nu=nu)
    assume(not unresolved(G, result.mean, result.joint))
    expected = kappa * norm(result.joint)
    size = max(largest(G) / norm(result.rectified), largest(G) / norm(result.joint)) ** 2
    assert norm(result.enhanced) == pytest.approx(expected, rel=1e-12 + 64 * EPS * size)


@given(problem=problems(), rho=zoo.rhos, kappa=zoo.kappas, nu=zoo.nus)
def test_update_is_the_fusion_of_enhanced_and_joint(
    problem: tuple[Tensor, list[float]], rho: float, kappa: float, nu: float
) -> None:
    G, weights = problem
    result = came_grad(G, weights, rho=rho, kappa=kappa, nu=nu)
    fused = (1 - nu) * result.enhanced + nu * kappa * result.joint
    size = float(result.coefficients.abs().sum()) * largest(G) + norm(result.enhanced)
    assert same_vector(result.update, fused, size=size, tolerance=1e-11)


@given(problem=problems(), rho=zoo.rhos)
def test_coefficients_reproduce_the_update(problem: tuple[Tensor, list[float]], rho: float) -> None:
    G, weights = problem
    result = came_grad(G, weights, rho=rho)
    size = float(result.coefficients.abs() @ torch.linalg.vector_norm(G, dim=-1))
    assert same_vector(result.coefficients @ G, result.update, size=size, tolerance=1e-14)
    from_gramian = came_grad_coefficients(gramian(G), weights, rho=rho)
    if not unresolved(G, result.mean, result.rectified, result.alpha @ G):
        assert same_vector(from_gramian @ G, result.update, size=size)


@given(problem=problems(kinds=GENERIC), rho=zoo.rhos)
def test_strong_duality(problem: tuple[Tensor, list[float]], rho: float) -> None:
    """min_i g_iᵀu* = f(α*) ≥ every other feasible point's, here the mean's."""
    G, weights = problem
    result = came_grad(G, weights, rho=rho)
    assume(not unresolved(G, result.mean))
    size = norm(result.mean) * largest(G)
    combined = result.alpha @ G
    assume(rho == 0 or not unresolved(G, combined))
    limit = 1e-11 + (64 * EPS * (largest(G) / norm(combined)) ** 2 if rho > 0 else 0.0)
    assert float((G @ result.rectified).min()) == pytest.approx(float(result.dual_value), abs=limit * size)
    assert float(result.dual_value) >= float((G @ result.mean).min()) - limit * size


@given(problem=problems(), power=st.integers(-40, 40), rho=zoo.rhos)
def test_update_is_homogeneous_of_degree_one(problem: tuple[Tensor, list[float]], power: int, rho: float) -> None:
    """Powers of two commute with rounding, so the update must scale to the last bit."""
    G, weights = problem
    plain, scaled = came_grad(G, weights, rho=rho), came_grad(G * 2.0**power, weights, rho=rho)
    assert torch.equal(plain.update * 2.0**power, scaled.update)
    assert torch.equal(plain.alpha, scaled.alpha)
    assert torch.equal(plain.valid, scaled.valid)


@given(problem=problems(kinds=GENERIC), factor=st.floats(1e-3, 1e3))
def test_update_is_homogeneous_for_any_factor(problem: tuple[Tensor, list[float]], factor: float) -> None:
    G, weights = problem
    plain, scaled = came_grad(G, weights), came_grad(G * factor, weights)
    assume(not unresolved(G, plain.mean, plain.rectified, plain.joint, plain.alpha @ G))
    assert same_vector(plain.update * factor, scaled.update, size=factor * norm(plain.update) + 1e-300, tolerance=1e-6)


@given(problem=problems(), seed=zoo.seeds, rho=zoo.rhos)
def test_permuting_the_tasks_changes_nothing(problem: tuple[Tensor, list[float]], seed: int, rho: float) -> None:
    G, weights = problem
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(G)))
    plain = came_grad(G, weights, rho=rho)
    permuted = came_grad(G[order], torch.tensor(weights)[order], rho=rho)
    assume(not unresolved(G, plain.mean, plain.rectified, plain.alpha @ G))
    size = norm(plain.rectified) * largest(G) / norm(plain.alpha @ G)
    assert same_vector(plain.rectified, permuted.rectified, size=size, tolerance=1e-7)


@given(problem=problems(), seed=zoo.seeds)
def test_rotating_parameter_space_rotates_the_update(problem: tuple[Tensor, list[float]], seed: int) -> None:
    G, weights = problem
    rng = np.random.default_rng(seed)
    Q = torch.from_numpy(np.linalg.qr(rng.normal(size=(G.shape[1], G.shape[1])))[0])
    plain, rotated = came_grad(G, weights), came_grad(G @ Q, weights)
    assume(not unresolved(G, plain.mean, plain.rectified, plain.joint, plain.alpha @ G))
    size = norm(plain.update) * (largest(G) / norm(plain.alpha @ G)) ** 2
    assert same_vector(plain.update @ Q, rotated.update, size=size, tolerance=1e-7)


@given(problem=problems())
def test_nu_one_kappa_one_is_linear_scalarization(problem: tuple[Tensor, list[float]]) -> None:
    G, weights = problem
    result = came_grad(G, weights, kappa=1.0, nu=1.0)
    assert torch.equal(result.coefficients, linear(gramian(G / max(largest(G), 1e-300)), weights))
    assert torch.equal(result.update, result.joint)


@given(problem=problems(max_tasks=1), rho=zoo.rhos, kappa=zoo.kappas, nu=zoo.nus)
def test_one_task_gets_kappa_times_its_gradient(
    problem: tuple[Tensor, list[float]], rho: float, kappa: float, nu: float
) -> None:
    G, weights = problem
    result = came_grad(G, weights, rho=rho, kappa=kappa, nu=nu)
    expected = kappa * weights[0] * G[0]
    assert same_vector(result.update, expected, size=norm(expected), tolerance=1e-12)
    assert result.valid


@given(problem=problems(kinds=GENERIC), rho=zoo.rhos)
def test_the_direction_stays_within_arcsin_rho_of_the_mean(problem: tuple[Tensor, list[float]], rho: float) -> None:
    """∠(u*, μ) ≤ arcsin ρ, on which theory T6 rests."""
    G, weights = problem
    result = came_grad(G, weights, rho=rho)
    assume(not unresolved(G, result.mean))
    cosine = float(result.rectified @ result.mean) / (norm(result.rectified) * norm(result.mean))
    assert cosine >= (1 - rho**2) ** 0.5 - 1e-9 * (largest(G) / norm(result.mean)) ** 2


@given(problem=problems(kinds=GENERIC), rho=zoo.rhos, kappa=zoo.kappas, nu=zoo.nus)
def test_weighted_centre_always_descends_the_weighted_loss(
    problem: tuple[Tensor, list[float]], rho: float, kappa: float, nu: float
) -> None:
    """Theory T7: g_JᵀF ≥ κ√(1−ρ²)‖g_J‖² for every ν."""
    G, weights = problem
    result = came_grad(G, weights, rho=rho, kappa=kappa, nu=nu, center="weighted")
    weighted_largest = largest(G * torch.tensor(weights)[:, None])
    assume(norm(result.joint) > 1e-5 * weighted_largest)
    bound = kappa * (1 - rho**2) ** 0.5 * norm(result.joint) ** 2
    assert float(result.joint @ result.update) >= bound * (1 - 1e-9 * (weighted_largest / norm(result.joint)) ** 2)


@given(problem=problems(kinds=GENERIC), rho=zoo.rhos, limit=zoo.nus)
def test_adaptive_fusion_is_the_largest_harmless_share(
    problem: tuple[Tensor, list[float]], rho: float, limit: float
) -> None:
    """Theory T9: where stage 1 is strictly valid nobody is harmed, and a larger ν ≤ limit would harm."""
    G, weights = problem
    result = came_grad(G, weights, rho=rho, nu=limit, fusion="adaptive")
    assume(not unresolved(G, result.mean, result.rectified, result.joint))
    products = G @ result.enhanced
    rounding = 1e-9 * largest(G) * norm(result.enhanced)
    assume(float(products.min()) >= 0)
    assert float((G @ result.update).min()) >= -rounding
    more = came_grad(G, weights, rho=rho, nu=limit, fusion="fixed")
    if float((G @ more.update).min()) >= rounding:
        assert same_vector(result.update, more.update, size=norm(more.update), tolerance=1e-6)


@given(problem=problems(kinds=("independent", "low_rank", "duplicated", "zero_row")), rho=zoo.rhos)
def test_float32_agrees_with_float64(problem: tuple[Tensor, list[float]], rho: float) -> None:
    """Same float32 numbers, computed in both; only the last combination is rounded differently."""
    G, weights = problem
    single = (G / max(largest(G), 1e-300)).float()
    low, high = came_grad(single, weights, rho=rho), came_grad(single.double(), weights, rho=rho)
    assert low.update.dtype == low.alpha.dtype == torch.float32
    size = float(high.coefficients.abs() @ torch.linalg.vector_norm(single.double(), dim=-1))
    assert same_vector(
        low.update.double(), high.update, size=size, tolerance=8 * len(G) * torch.finfo(torch.float32).eps
    )


@given(seed=zoo.seeds, tasks=st.integers(1, 6), rho=zoo.rhos)
def test_a_batch_is_a_loop(seed: int, tasks: int, rho: float) -> None:
    kinds = ("independent", "duplicated", "zero_row")
    G = torch.stack([torch.from_numpy(zoo.sample(kind, tasks, seed)) for kind in kinds])
    G = torch.stack([G, G * 1e-3])
    weights = torch.arange(1.0, tasks + 1)
    together = came_grad(G, weights, rho=rho)
    assert isinstance(together, CAMEGradResult)
    for index in np.ndindex(2, 3):
        alone = came_grad(G[index], weights, rho=rho)
        assert same_vector(together.update[index], alone.update, size=norm(alone.update), tolerance=1e-8)
        assert together.valid[index] == alone.valid


def test_the_printed_epsilon_would_break_homogeneity() -> None:
    """Negative control: equation 11 with its ε = 1e-8 fails the homogeneity that F above satisfies."""
    G = torch.from_numpy(zoo.sample("independent", 3, 0))

    def printed(G: Tensor) -> Tensor:
        result = came_grad(G)
        return 1.5 * norm(result.joint) / (norm(result.rectified) + 1e-8) * result.rectified

    scale = 2.0**-30
    assert norm(printed(G * scale) / scale - printed(G)) > 0.1 * norm(printed(G))
