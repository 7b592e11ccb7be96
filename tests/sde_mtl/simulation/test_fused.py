"""The compiled steps against the slow path, against closed forms and against themselves in other company."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimizers import came_grad_coefficients, linear, mgda
from sde_mtl.problems import AdditiveNoise, CAGradToy, DoubleWell, Quadratic
from sde_mtl.simulation import Dynamics, EffectiveSDE, FusedSteps, LinearSDE, Recursion, fuse, simulate
from sde_mtl.theory.t03_diffusion_decay import OrnsteinUhlenbeck

RULES = [linear, came_grad_coefficients, partial(came_grad_coefficients, nu=0.7, kappa=1.2, rho=0.3),
         partial(came_grad_coefficients, center="weighted"), partial(came_grad_coefficients, fusion="adaptive"),
         partial(came_grad_coefficients, center="weighted", fusion="adaptive", nu=0.9)]  # fmt: skip


def random_problem(K: int, d: int, seed: int, *, diagonal: bool = False) -> tuple[Quadratic, AdditiveNoise]:
    rng = torch.Generator().manual_seed(seed)
    B = torch.randn(K, d, d, generator=rng, dtype=torch.float64)
    A = B @ B.mT / d + 0.3 * torch.eye(d)
    S = torch.randn(K * d, K * d, generator=rng, dtype=torch.float64)
    if diagonal:
        A, S = torch.diag_embed(A.diagonal(dim1=1, dim2=2)), torch.diag(S.diagonal())
    centres = torch.randn(K, d, generator=rng, dtype=torch.float64)
    return Quadratic(A, centres), AdditiveNoise((S @ S.T / (K * d)).reshape(K, d, K, d))


def slow(dynamics: Dynamics, theta: Tensor, steps: int, *, first: int = 0, seed: int = 0) -> Tensor:
    theta, paths = theta.clone(), torch.arange(first, first + len(theta))
    for step in range(steps):
        theta = dynamics.advance(theta, paths, step, seed)
    return theta


def fast(dynamics: Dynamics, theta: Tensor, steps: int, *, first: int = 0, seed: int = 0) -> Tensor:
    fused = fuse(dynamics, theta.dtype)
    assert fused is not None
    theta, alive = theta.clone(), torch.ones(len(theta)).bool()
    fused.advance(theta, alive, first, 0, steps, seed)
    assert alive.all()
    return theta


@settings(max_examples=30)
@given(K=st.integers(1, 4), d=st.integers(1, 9), diagonal=st.booleans(), seed=st.integers(0, 2**64 - 1))
def test_linear_dynamics_are_those_of_the_slow_path(K: int, d: int, diagonal: bool, seed: int) -> None:
    problem, noise = random_problem(K, d, seed % 1000, diagonal=diagonal)
    theta = torch.randn(70, d, dtype=torch.float64)
    parts = problem, noise, torch.linspace(1, 2, K), 0.02
    for dynamics in (LinearSDE(*parts), LinearSDE(*parts, time_step=0.005), Recursion(*parts[:2], linear, *parts[2:])):
        found, expected = (run(dynamics, theta, 6, first=2**32 - 70, seed=seed) for run in (fast, slow))
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-13)


@settings(max_examples=40)
@given(rule=st.sampled_from(RULES), d=st.integers(1, 6), diagonal=st.booleans(), seed=st.integers(0, 999))
def test_recursions_on_quadratics_are_those_of_the_slow_path(rule, d: int, diagonal: bool, seed: int) -> None:
    problem, noise = random_problem(2, d, seed, diagonal=diagonal)
    dynamics = Recursion(problem, noise, rule, [1.0, 3.0], 0.03)
    theta = torch.randn(70, d, dtype=torch.float64)
    assert torch.allclose(
        fast(dynamics, theta, 6, seed=seed), slow(dynamics, theta, 6, seed=seed), rtol=1e-10, atol=1e-11
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("problem", [
    DoubleWell(0.7, dimension=1), DoubleWell(1.0, sharp=5.0, flat=0.5, offset=0.4), CAGradToy(),
], ids=["well-1", "well-2", "toy"])  # fmt: skip
def test_recursions_on_landscapes_are_those_of_the_slow_path(problem, rule) -> None:
    noise = AdditiveNoise.correlated([1.0, 0.5], correlation=-0.4, dimension=problem.dimension)
    dynamics = Recursion(problem, noise, rule, [0.5, 1.0], 0.01)
    theta = torch.randn(200, problem.dimension, dtype=torch.float64) * (6 if isinstance(problem, CAGradToy) else 1)
    found, expected = fast(dynamics, theta, 5), slow(dynamics, theta, 5)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-10)
    assert not torch.allclose(found, slow(dynamics, theta, 4), rtol=1e-3), "negative control: a step less is seen"


@pytest.mark.parametrize("y", [0.0, 1e-9, -1e-9])
def test_the_toy_has_its_gradients_at_the_kinks(y: float) -> None:
    """At y = 0 both gates open, and at |wall| below the floor the logarithm is flat."""
    silent = AdditiveNoise(np.zeros((2, 2, 2, 2)))
    theta = torch.tensor([[1.0, y], [-7.0, y], [7.0, y]]).double()
    for weights in ([1.0, 0.0], [0.0, 1.0]):
        dynamics = Recursion(CAGradToy(), silent, linear, weights, 0.1)
        assert torch.allclose(fast(dynamics, theta, 1), slow(dynamics, theta, 1), rtol=1e-12)


def test_float32_is_near_float64() -> None:
    """Errors add up to a few hundred roundings after 100 steps; the other seed is no neighbour."""
    for dynamics in _three():
        theta = torch.randn(128, dynamics.dimension, dtype=torch.float64)
        double, single = fast(dynamics, theta, 100), fast(dynamics, theta.float(), 100)
        assert single.dtype == torch.float32
        assert (single - double).abs().max() < 3e-5
        assert (single - fast(dynamics, theta, 100, seed=1)).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_company_threads_and_calls_change_no_bit(dtype: torch.dtype) -> None:
    for dynamics in _three():
        fused = fuse(dynamics, dtype)
        assert fused is not None
        start = torch.randn(1000, dynamics.dimension, dtype=dtype)
        whole, alive = start.clone(), torch.ones(1000).bool()
        fused.advance(whole, alive, 0, 0, 300, 7)
        split = start.clone()
        torch.set_num_threads(2)
        try:
            for first, last in ((0, 1), (1, 130), (130, 1000)):
                for step, count in ((0, 1), (1, 120), (121, 179)):
                    fused.advance(split[first:last], alive[first:last], first, step, count, 7)
        finally:
            torch.set_num_threads(1)
        assert torch.equal(whole, split)
        wrong = start.clone()
        fused.advance(wrong, alive, 1, 0, 300, 7)
        assert not torch.equal(whole, wrong)


def test_a_diverged_path_rests_at_zero_and_is_marked() -> None:
    steep = Quadratic([torch.eye(2) * 50, torch.eye(2)], torch.zeros(2, 2))
    noise = AdditiveNoise.correlated([1.0, 1.0], dimension=2)
    for rule in (linear, came_grad_coefficients):
        fused = fuse(Recursion(steep, noise, rule, [1.0, 1.0], 0.1))
        assert fused is not None
        theta, alive = torch.ones(70, 2).double(), torch.ones(70).bool()
        fused.advance(theta, alive, 0, 0, 60, 0)
        assert not alive.any()
        assert (theta == 0).all()
        theta, alive = torch.zeros(3, 2).double(), torch.ones(3).bool()
        theta[1, 0] = torch.nan
        fused.advance(theta, alive, 0, 0, 1, 0)
        assert alive.tolist() == [True, False, True]
        assert (theta[1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_moments_are_those_of_the_closed_form(dtype: torch.dtype) -> None:
    """Mean and covariance within 5 SE after 40 steps; with the noise of another correlation, not."""
    problem, noise = random_problem(2, 3, 5)
    eta, w, start = 0.05, [1.0, 2.0], [1.0, -1.0, 0.5]
    law = OrnsteinUhlenbeck.of(problem, noise, w, eta)
    other = OrnsteinUhlenbeck.of(problem, AdditiveNoise(1.2 * noise.covariance), w, eta)
    for dynamics in (LinearSDE(problem, noise, w, eta), Recursion(problem, noise, linear, w, eta)):
        ensemble = simulate(dynamics, start, 40, paths=20_000, seed=1, dtype=dtype)
        assert ensemble.mean.dtype == ensemble.covariance.dtype == torch.float64
        deviation = (ensemble.mean[0] - torch.from_numpy(law.discrete_mean(40, start))).abs() / ensemble.mean_error()[0]
        assert deviation.max() < 5
        for closed, near in ((law, True), (other, False)):
            gap = (ensemble.covariance[0] - torch.from_numpy(closed.discrete_covariance(40))).abs()
            assert ((gap / ensemble.covariance_error()[0]).max() < 5) == near


def test_what_has_kernels_and_what_has_not() -> None:
    problem, noise = random_problem(2, 2, 0)
    three, noises = random_problem(3, 2, 0)

    class Mine(Recursion):
        pass

    class MyQuadratic(Quadratic):
        pass

    mine = MyQuadratic(problem.curvatures, problem.centres)
    covered: list[Dynamics] = [
        LinearSDE(three, noises, [1, 1, 1], 0.1),
        Recursion(three, noises, linear, [1, 1, 1], 0.1),
    ]
    assert all(isinstance(fuse(dynamics), FusedSteps) for dynamics in [*covered, *_three()])
    for dynamics in (
        Mine(problem, noise, linear, [1, 1], 0.1), Recursion(mine, noise, linear, [1, 1], 0.1),
        Recursion(problem, noise, mgda, [1, 1], 0.1), Recursion(three, noises, came_grad_coefficients, [1, 1, 1], 0.1),
        EffectiveSDE(problem, noise, linear, [1, 1], 0.1),
    ):  # fmt: skip
        assert fuse(dynamics) is None
    assert fuse(covered[0], torch.float16) is None
    with pytest.raises(ValueError, match="rho"):
        fuse(Recursion(problem, noise, partial(came_grad_coefficients, rho=2.0), [1, 1], 0.1))
    with pytest.raises(ValueError, match="weights"):
        fuse(Recursion(problem, noise, linear, [-1, 1], 0.1))


def test_wrong_arrays_and_numbers_are_named() -> None:
    fused = fuse(_three()[0])
    assert fused is not None
    theta, alive = torch.zeros(4, 2).double(), torch.ones(4).bool()
    with pytest.raises(ValueError, match=r"contiguous torch\.float64 on the CPU, got torch\.float32"):
        fused.advance(theta.float(), alive, 0, 0, 1, 0)
    with pytest.raises(ValueError, match="step = 4294967296 must"):
        fused.advance(theta, alive, 0, 2**32, 1, 0)
    with pytest.raises(ValueError, match="path = 4294967298 must"):
        fused.advance(theta, alive, 2**32 - 1, 0, 1, 0)
    with pytest.raises(ValueError, match="seed = -1"):
        fused.advance(theta, alive, 0, 0, 1, -1)


MEMORY = """
import resource, sys, torch
from optimizers import came_grad_coefficients
from sde_mtl import AdditiveNoise, Quadratic, Recursion, simulate
problem = Quadratic([[[1.0]], [[3.0]]], [[1.0], [-1.0]])
training = Recursion(problem, AdditiveNoise.correlated([1.0, 1.0]), came_grad_coefficients, [1, 1], 0.1)
simulate(training, [0.0], 10, paths=5000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
simulate(training, [0.0], int(sys.argv[1]), paths=int(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "paths"), [(20_000, 5000), (10, 2_000_000)])
def test_memory_grows_neither_with_steps_nor_with_paths(steps: int, paths: int) -> None:
    """Keeping the positions would take 800 MB and 16 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(steps), str(paths)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 4096


def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, sde_mtl, sde_mtl.simulation.fused; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def _three() -> list[Dynamics]:
    problem, noise = random_problem(2, 2, 3)
    parts = [1.0, 2.0], 0.05
    return [LinearSDE(problem, noise, *parts), Recursion(problem, noise, came_grad_coefficients, *parts),
            Recursion(DoubleWell(0.3, offset=0.2), noise, linear, *parts)]  # fmt: skip
