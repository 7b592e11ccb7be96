import math
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers import came_grad_coefficients, linear
from optimizers.aggregators.by_name import AGGREGATORS, aggregator
from sde_mtl.problems import AdditiveNoise, FiniteSumRegression, MinibatchNoise, Quadratic
from sde_mtl.simulation import CheckpointError, DivergedWarning, EffectiveSDE, LinearSDE, Recursion, simulate
from sde_mtl.simulation._simulate import BLOCK
from sde_mtl.theory.sensitivity import linearize
from sde_mtl.theory.t12_bias import predicted_bias


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


def test_linear_aggregator_and_linear_sde_have_one_law(problem: Quadratic, noise: AdditiveNoise) -> None:
    """At dt = η both add the same drift and Gaussian noise of the same covariance; at dt = η/2 they do not."""
    w = torch.tensor([1.0, 4.0]).double()
    silent = AdditiveNoise(torch.zeros(2, 2, 2, 2))
    theta, paths = torch.randn(50, 2, dtype=torch.float64), torch.arange(50)
    drift = [make(problem, silent, w, 0.05).advance(theta.clone(), paths, 0, 0) for make in (_linear, LinearSDE)]
    assert torch.allclose(*drift, rtol=0, atol=1e-14)
    per_task = 0.05 * torch.einsum("k,kan->an", w, noise.factor.reshape(2, 2, 4))
    for time_step, equal in ((0.05, True), (0.025, False)):
        factor = LinearSDE(problem, noise, w, 0.05, time_step=time_step).factor
        assert torch.allclose(factor @ factor.T, per_task @ per_task.T, rtol=1e-13, atol=1e-16) == equal


def _linear(problem: Quadratic, noise: AdditiveNoise, weights: torch.Tensor, learning_rate: float) -> Recursion:
    return Recursion(problem, noise, linear, weights, learning_rate)


@settings(max_examples=12)
@given(paths=st.integers(2, 3 * BLOCK), path=st.integers(0, 3 * BLOCK - 1))
def test_a_path_is_bitwise_the_same_in_any_company(paths: int, path: int) -> None:
    problem = Quadratic([[[1.0, 0.2], [0.2, 3.0]], [[2.0, 0.0], [0.0, 0.7]]], [[1.0, 0.0], [-1.0, 0.5]])
    training = Recursion(
        problem, AdditiveNoise.correlated([1.0, 1.0], dimension=2), came_grad_coefficients, [1, 4], 0.1
    )
    path %= paths
    few = simulate(training, [3.0, 1.0], 4, paths=paths, record=[0, 2, 4], keep=[path])
    many = simulate(training, [3.0, 1.0], 4, paths=3 * BLOCK, record=[0, 2, 4], keep=[path])
    assert torch.equal(few.kept, many.kept)
    assert torch.equal(few.kept[0, 0], torch.tensor([3.0, 1.0]).double())


def test_streaming_moments_are_those_of_the_sample(problem: Quadratic, noise: AdditiveNoise) -> None:
    training = Recursion(problem, noise, linear, [1.0, 1.0], 0.05)
    theta = torch.ones(500, 2, dtype=torch.float64)
    for step in range(7):
        theta = training.advance(theta, torch.arange(500), step, 11)
    moments = simulate(training, [1.0, 1.0], 7, paths=500, seed=11)
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
        ({"steps": 5, "paths": 9, "keep": [9]}, r"keep = \[9\] must be path numbers in 0 … 8"),
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


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_aggregator_runs_on_the_exact_recursion_and_its_effective_sde(name: str, problem, noise) -> None:
    parts = problem, noise, aggregator(name), [1.0, 4.0], 0.02
    for dynamics in (Recursion(*parts), EffectiveSDE(*parts, bias=False)):
        ensemble = simulate(dynamics, [2.0, 2.0], 20, paths=32)
        assert ensemble.diverged == 0
        assert ensemble.mean.isfinite().all()


def test_unknown_aggregators_and_options_are_named() -> None:
    with pytest.raises(ValueError, match="unknown aggregator 'sgd'; there are linear, equal"):
        aggregator("sgd")
    with pytest.raises(ValueError, match="cagrad has no option kappa; it has c"):
        aggregator("cagrad", kappa=2.0)
    with pytest.raises(ValueError, match="rho"):
        aggregator("came-grad", rho=1.5)


def test_the_effective_sde_has_the_jacobian_and_the_bias_of_the_theory() -> None:
    """One step from a fixed θ: mean −η(F + ½D²F:Σ) and covariance η²JΣJᵀ, within 5 SE; without the bias, rejected."""
    problem = Quadratic([torch.eye(2), 2 * torch.eye(2)], [[1.0, 0.0], [-0.5, 0.9]])
    noise = AdditiveNoise.correlated([0.04, 0.04], correlation=-0.3, dimension=2)
    w, eta, n = torch.tensor([0.5, 0.5]).double(), 0.1, 200_000
    theta = torch.tensor([0.1, 0.2]).double()
    dynamics = EffectiveSDE(problem, noise, aggregator("came-grad"), w, eta)
    step = (dynamics.advance(theta.repeat(n, 1), torch.arange(n), 0, 5) - theta) / -eta
    G = problem.gradients(theta)
    at = linearize(G, w)
    bias = predicted_bias(G, w, noise)
    error = step.std(0) / n**0.5
    assert ((step.mean(0) - at.update - bias).abs() < 5 * error).all()
    assert ((step.mean(0) - at.update).abs() > 5 * error).any()
    covariance, exact = torch.cov(step.T), at.diffusion(noise)
    assert (covariance - exact).abs().max() < 0.05 * exact.abs().max()


def test_minibatch_sgd_and_its_effective_sde_agree_in_mean_and_covariance() -> None:
    """Finite-sum noise is neither Gaussian nor additive; the SDE has its covariance. Same recursion at dt = η: 6 SE."""
    problem = FiniteSumRegression.random(samples=60, dimension=2, tasks=2, seed=3)
    parts = problem, MinibatchNoise(problem, 8), aggregator("linear"), [1.0, 1.0], 0.05
    loop = simulate(Recursion(*parts), [2.0, 2.0], 60, paths=20_000)
    sde = simulate(EffectiveSDE(*parts), [2.0, 2.0], 60, paths=20_000)
    error = (loop.mean_error() ** 2 + sde.mean_error() ** 2).sqrt()
    assert ((loop.mean - sde.mean).abs() < 6 * error).all()
    error = (loop.covariance_error() ** 2 + sde.covariance_error() ** 2).sqrt()
    assert ((loop.covariance - sde.covariance).abs() < 6 * error).all()
    half = simulate(EffectiveSDE(problem, MinibatchNoise(problem, 4), *parts[2:]), [2.0, 2.0], 60, paths=20_000)
    assert ((loop.covariance - half.covariance).abs() > 6 * error).any()


def test_first_passage_and_occupation_are_those_of_the_paths(problem: Quadratic, noise: AdditiveNoise) -> None:
    training = Recursion(problem, noise, linear, [1.0, 1.0], 0.05)
    inside = lambda theta: theta[:, 0] < 0  # noqa: E731
    ensemble = simulate(training, [1.0, 1.0], 30, paths=40, record=range(31), keep=range(40), target=inside,
                        region=inside)  # fmt: skip
    below = ensemble.kept[..., 0] < 0
    for path in range(40):
        first = below[path].nonzero()
        assert ensemble.passage[path] == (first[0, 0] if len(first) else -1)
    assert torch.allclose(ensemble.occupation, below[:, 1:].double().mean(1))
    rate, error = ensemble.passage_rate()
    assert rate > error > 0
    begun = simulate(training, [1.0, 1.0], 3, paths=4, target=lambda theta: theta[:, 0] > 0)
    assert all(math.isnan(value) for value in begun.passage_rate())
    with pytest.raises(ValueError, match="without target="):
        simulate(training, [1.0, 1.0], 2, paths=4).passage_rate()


class Killed(Recursion):
    """Stops after some steps, as a killed process would."""

    left = 10**9

    def advance(self, theta, paths, step, seed):
        Killed.left -= 1
        if Killed.left < 0:
            raise KeyboardInterrupt
        return super().advance(theta, paths, step, seed)


def test_a_killed_simulation_continues_bitwise(tmp_path: Path, problem: Quadratic, noise: AdditiveNoise) -> None:
    killed = Killed(problem, noise, linear, [1.0, 1.0], 0.05)
    file = tmp_path / "run.ckpt"
    options = {"paths": BLOCK + 9, "record": [3, 12], "keep": [5], "target": lambda t: t[:, 0] < 0,
               "region": lambda t: t[:, 1] > 0}  # fmt: skip
    Killed.left = 10**9
    whole = simulate(killed, [1.0, 1.0], 12, **options)
    for left in (2 + 7, 2 + 9):  # two steps make the fingerprint; the second stop is in the second block
        Killed.left = left
        with pytest.raises(KeyboardInterrupt):
            simulate(killed, [1.0, 1.0], 12, checkpoint=file, checkpoint_seconds=0, **options)
        assert file.exists()
    Killed.left = 10**9
    with pytest.raises(CheckpointError, match="another simulation"):
        simulate(killed, [1.0, 1.0], 12, seed=1, checkpoint=file, **options)
    continued = simulate(killed, [1.0, 1.0], 12, checkpoint=file, **options)
    for name in ("mean", "covariance", "kept", "passage", "occupation"):
        assert torch.equal(getattr(whole, name), getattr(continued, name)), name
    assert not file.exists()
    file.write_bytes(b"half a check")
    with pytest.raises(CheckpointError, match="is damaged"):
        simulate(killed, [1.0, 1.0], 12, checkpoint=file, **options)
    assert file.read_bytes() == b"half a check"


def test_diverged_paths_have_no_occupation(noise: AdditiveNoise) -> None:
    steep = Quadratic([torch.eye(2) * 50, torch.eye(2)], torch.zeros(2, 2))
    with pytest.warns(DivergedWarning):
        ensemble = simulate(Recursion(steep, noise, linear, [1.0, 1.0], 0.1), [1.0, 1.0], 60, paths=10, keep=[0],
                            region=lambda t: t[:, 0] > 0)  # fmt: skip
    assert ensemble.occupation.isnan().all()
    assert ensemble.kept.isnan().all()
