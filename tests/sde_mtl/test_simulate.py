import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers import came_grad_coefficients, linear
from sde_mtl.dynamics import LinearSDE, Recursion
from sde_mtl.noise import AdditiveNoise
from sde_mtl.problems import Quadratic
from sde_mtl.simulate import DivergedWarning, simulate


@pytest.fixture
def problem() -> Quadratic:
    return Quadratic([[[1.0, 0.2], [0.2, 3.0]], [[2.0, 0.0], [0.0, 0.7]]], [[1.0, 0.0], [-1.0, 0.5]])


@pytest.fixture
def noise() -> AdditiveNoise:
    return AdditiveNoise.correlated([1.0, 0.5], correlation=-0.4, dimension=2)


def test_gradients_are_those_of_the_losses(problem: Quadratic) -> None:
    theta = torch.randn(2, dtype=torch.float64, requires_grad=True)
    for task, loss in enumerate(problem.losses(theta)):
        (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
        assert torch.allclose(gradient, problem.gradients(theta)[task])


def test_the_minimizer_has_no_joint_gradient(problem: Quadratic) -> None:
    weights = torch.tensor([1.0, 4.0]).double()
    joint = weights @ problem.gradients(problem.minimizer(weights))
    assert joint.abs().max() < 1e-14


def test_linear_aggregator_and_linear_sde_are_one_recursion(problem: Quadratic, noise: AdditiveNoise) -> None:
    """At dt = η Euler–Maruyama is the training loop, path by path."""
    training = Recursion(problem, noise, linear, [1.0, 4.0], 0.05)
    sde = LinearSDE(problem, noise, [1.0, 4.0], 0.05)
    theta, paths = torch.randn(50, 2, dtype=torch.float64), torch.arange(50)
    for step in range(5):
        theta, other = training.advance(theta, paths, step, 0), sde.advance(theta, paths, step, 0)
        assert torch.allclose(theta, other, rtol=0, atol=1e-14)


@settings(max_examples=12)
@given(chunk=st.integers(20, 300))
def test_chunks_change_nothing_but_rounding(chunk: int) -> None:
    problem = Quadratic([[[1.0]], [[2.0]]], [[1.0], [-1.0]])
    noise = AdditiveNoise.correlated([1.0, 1.0])
    training = Recursion(problem, noise, linear, [1.0, 1.0], 0.1)
    whole = simulate(training, [3.0], 10, paths=257, record=[0, 5, 10])
    parts = simulate(training, [3.0], 10, paths=257, record=[0, 5, 10], chunk=chunk)
    assert torch.allclose(whole.mean, parts.mean, rtol=1e-12)
    assert torch.allclose(whole.covariance, parts.covariance, rtol=1e-10, atol=1e-15)


def test_streaming_moments_are_those_of_the_sample(problem: Quadratic, noise: AdditiveNoise) -> None:
    training = Recursion(problem, noise, linear, [1.0, 1.0], 0.05)
    theta = torch.ones(500, 2, dtype=torch.float64)
    for step in range(7):
        theta = training.advance(theta, torch.arange(500), step, 11)
    moments = simulate(training, [1.0, 1.0], 7, paths=500, seed=11, chunk=130)
    assert torch.allclose(moments.mean[0], theta.mean(0), rtol=1e-12)
    assert torch.allclose(moments.covariance[0], torch.cov(theta.T), rtol=1e-11)


def test_any_aggregator_runs(problem: Quadratic, noise: AdditiveNoise) -> None:
    moments = simulate(Recursion(problem, noise, came_grad_coefficients, [1.0, 4.0], 0.02), [2.0, 2.0], 50, paths=64)
    assert moments.diverged == 0
    assert moments.mean.isfinite().all()


def test_diverged_paths_are_counted_not_averaged(noise: AdditiveNoise) -> None:
    """With η·λ > 2 every path leaves; the moments are then NaN, not a number that looks like one."""
    steep = Quadratic([torch.eye(2) * 50, torch.eye(2)], torch.zeros(2, 2))
    with pytest.warns(DivergedWarning, match="100 of 100 paths diverged"):
        moments = simulate(Recursion(steep, noise, linear, [1.0, 1.0], 0.1), [1.0, 1.0], 60, paths=100)
    assert moments.diverged == 100
    assert moments.covariance.isnan().all()


def test_bad_input_is_named(problem: Quadratic, noise: AdditiveNoise) -> None:
    training = Recursion(problem, noise, linear, [1.0, 1.0], 0.05)
    for options, message in (
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"steps": 5, "paths": 0}, "paths = 0 must be at least 2"),
        ({"steps": 5, "chunk": 0}, "chunk = 0"),
        ({"steps": 5, "record": [6]}, r"record = \[6\] must be steps in 0 … 5"),
    ):
        with pytest.raises(ValueError, match=message):
            simulate(training, [0.0, 0.0], **options)
    with pytest.raises(ValueError, match="2 finite numbers"):
        simulate(training, [0.0], 5)
    with pytest.raises(ValueError, match=r"λ_max\(H\) = .* must lie in \(0, 2\)"):
        LinearSDE(problem, noise, [1.0, 1.0], 0.05, time_step=10.0)
    with pytest.raises(ValueError, match="learning_rate = -1"):
        Recursion(problem, noise, linear, [1.0, 1.0], -1)
    with pytest.raises(ValueError, match="noise has K = 1"):
        Recursion(problem, AdditiveNoise.correlated([1.0]), linear, [1.0, 1.0], 0.1)
    with pytest.raises(ValueError, match="task 1 has the negative eigenvalue -1"):
        Quadratic([torch.eye(2), -torch.eye(2)], torch.zeros(2, 2))
    with pytest.raises(ValueError, match="task 0 is not symmetric"):
        Quadratic([[[1.0, 1.0], [0.0, 1.0]]], torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"\(K, d, d\)"):
        Quadratic(torch.eye(2), torch.zeros(1, 2))


def test_no_warning_without_divergence(problem: Quadratic, noise: AdditiveNoise) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(Recursion(problem, noise, linear, [1.0, 1.0], 0.05), [0.0, 0.0], 3, paths=10)
