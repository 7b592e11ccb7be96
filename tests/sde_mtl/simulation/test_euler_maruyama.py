import math

import pytest
import torch
from torch import Tensor

from sde_mtl.problems import AdditiveNoise, Quadratic
from sde_mtl.random import normals
from sde_mtl.simulation import EulerMaruyama, LinearSDE, simulate

DRIFT = torch.tensor([[1.0, 0.4], [-0.2, 2.0]]).double()
FACTOR = torch.tensor([[0.5, 0.0, 0.2], [0.1, 0.3, 0.0]]).double()


def pull(theta: Tensor) -> Tensor:
    return -theta @ DRIFT.to(theta).T


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ornstein_uhlenbeck_has_the_moments_of_the_scheme(dtype: torch.dtype) -> None:
    """Full additive noise from three Brownian motions: within 5 SE; with a Brownian motion left out, not."""
    dt, steps = 0.02, 60
    process = EulerMaruyama(pull, FACTOR, 2, dt, noise="full")
    ensemble = simulate(process, [1.0, -1.0], steps, paths=20_000, dtype=dtype)
    contraction = torch.eye(2).double() - dt * DRIFT
    mean = torch.linalg.matrix_power(contraction, steps) @ torch.tensor([1.0, -1.0]).double()
    assert ((ensemble.mean[0] - mean).abs() < 5 * ensemble.mean_error()[0]).all()
    for factor, near in ((FACTOR, True), (FACTOR[:, :2], False)):
        covariance = torch.zeros(2, 2).double()
        for _ in range(steps):
            covariance = contraction @ covariance @ contraction.T + dt * factor @ factor.T
        gap = (ensemble.covariance[0] - covariance).abs() / ensemble.covariance_error()[0]
        assert (gap.max() < 5) == near


def test_strong_and_weak_order_on_geometric_brownian_motion() -> None:
    """dX = −X dt + 0.8 X dW against its exact solution on the same Brownian path: strong slope ½, weak slope 1."""
    strong, weak, levels = [], [], (4, 5, 6, 7)
    paths = torch.arange(20_000)
    for level in levels:
        steps = 2**level
        process = EulerMaruyama(lambda x: -x, lambda x: 0.8 * x, 1, 1 / steps)
        x, w = torch.ones(len(paths), 1).double(), torch.zeros(len(paths), 1).double()
        for step in range(steps):
            w += normals(paths, step, 1, seed=4) / math.sqrt(steps)
            x = process.advance(x, paths, step, 4)
        exact = torch.exp(-1.32 + 0.8 * w)
        strong.append((x - exact).abs().mean().item())
        weak.append((x - exact).mean().item())
    slope = math.log2(strong[0] / strong[-1]) / (levels[-1] - levels[0])
    assert slope == pytest.approx(0.5, abs=0.08)
    assert abs((1 - 2.0**-4) ** 16 - math.exp(-1)) / 3 < abs(weak[0]) < 3 * abs((1 - 2.0**-4) ** 16 - math.exp(-1))
    assert math.log2(abs(weak[0] / weak[2])) / 2 == pytest.approx(1.0, abs=0.3)


def test_every_kind_of_noise_is_its_formula() -> None:
    theta, paths, spread = torch.randn(9, 2, dtype=torch.float64), torch.arange(9), math.sqrt(0.1)
    full = lambda x: torch.stack([x, 2 * x, x**2], -1)  # noqa: E731
    for noise, diffusion, components, expected in (
        ("diagonal", torch.sin, 2, lambda z: theta.sin() * z),
        ("diagonal", torch.tensor([2.0, 3.0]), 2, lambda z: torch.tensor([2.0, 3.0]) * z),
        ("scalar", torch.sin, 1, lambda z: theta.sin() * z),
        ("scalar", torch.tensor([2.0, 3.0]), 1, lambda z: torch.tensor([2.0, 3.0]) * z),
        ("full", full, 3, lambda z: torch.einsum("nam,nm->na", full(theta), z)),
        ("full", FACTOR, 3, lambda z: z @ FACTOR.T),
    ):
        process = EulerMaruyama(pull, diffusion, 2, 0.1, noise=noise)
        buffer = theta.clone()
        found = process.advance(buffer, paths, 5, 11)
        z = normals(paths, 5, components, seed=11)
        assert found.data_ptr() == buffer.data_ptr(), "in place"
        assert torch.allclose(found, theta + 0.1 * pull(theta) + spread * expected(z), rtol=1e-14)


def test_a_drift_that_is_theta_itself_is_read_before_theta_changes() -> None:
    theta, paths = torch.randn(9, 2, dtype=torch.float64), torch.arange(9)
    process = EulerMaruyama(lambda x: x, lambda x: x, 2, 0.1)
    z = normals(paths, 0, 2, seed=0)
    assert torch.allclose(process.advance(theta.clone(), paths, 0, 0), theta * (1.1 + math.sqrt(0.1) * z), rtol=1e-14)


def test_it_is_the_linear_sde_for_its_drift_and_diffusion() -> None:
    """Path by path in three dimensions; with two, LinearSDE takes the normals of two steps from one Philox call."""
    curvature = torch.block_diag(DRIFT @ DRIFT.T, torch.eye(1).double())
    problem = Quadratic([curvature], torch.zeros(1, 3))
    sde = LinearSDE(problem, AdditiveNoise.correlated([0.3], dimension=3), [1.0], 0.05, time_step=0.01)
    own = EulerMaruyama(lambda x: -problem.gradients(x)[:, 0], sde.factor / 0.1, 3, 0.01, noise="full")
    ours, theirs = (simulate(dynamics, [1.0, 2.0, 0.5], 50, paths=100, keep=range(100)) for dynamics in (own, sde))
    assert torch.allclose(ours.kept, theirs.kept, rtol=1e-11)


def test_bad_input_is_named() -> None:
    for arguments, options, message in (
        ((pull, FACTOR, 2, 0.0), {}, "time_step = 0.0 must be finite and > 0"),
        ((pull, FACTOR, 2, 0.1), {"noise": "levy"}, "noise = 'levy' must be one of diagonal, full, scalar"),
        ((pull, FACTOR, 2, 0.1), {}, r"diagonal noise must be \(n, d\) or \(d,\) with d = 2, got \(2, 3\)"),
        ((pull, FACTOR.T, 2, 0.1), {"noise": "full"}, r"got \(3, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            EulerMaruyama(*arguments, **options)
    theta, paths = torch.zeros(5, 2).double(), torch.arange(5)
    with pytest.raises(ValueError, match=r"drift must return \(5, 2\) .* got \(5, 1\)"):
        EulerMaruyama(lambda x: x[:, :1], torch.ones(2), 2, 0.1).advance(theta, paths, 0, 0)
    with pytest.raises(ValueError, match=r"got \(4, 2\)"):
        EulerMaruyama(pull, lambda x: x[:4], 2, 0.1).advance(theta, paths, 0, 0)
    with pytest.raises(ValueError, match=r"dtype must be .* got torch\.float16"):
        simulate(EulerMaruyama(pull, torch.ones(2), 2, 0.1), [0.0, 0.0], 2, dtype=torch.float16)
