from pathlib import Path

import numpy as np
import pytest
import torch
from logs import gradients, write_log
from safetensors.numpy import save_file

from sde_mtl.gradient_logs import (
    EmpiricalNoise,
    FrozenSet,
    GradientLogError,
    LocalModel,
    analyze,
    distortion,
    empirical_sde,
    read_log,
)


def frozen(n: int, *, correlation: float = 0.0, noise: float = 0.5, seed: int = 0, **more) -> FrozenSet:
    g = gradients(np.random.default_rng(seed), n, correlation=correlation, noise=noise)
    return FrozenSet(7, np.ones(g.shape[:2]), np.einsum("nid,njd->nij", g, g), g.astype(np.float32), None, **more)


def test_shrunk_noise_keeps_every_trace_and_is_closer_to_the_truth() -> None:
    """tr Σ̂_ij is the sample's within 5 SE of the Monte Carlo; the shrunk covariance beats the sample's."""
    sample = gradients(np.random.default_rng(1), 16, correlation=-0.5, noise=2.0)
    noise = EmpiricalNoise(sample)
    epsilon = noise.sample(torch.arange(40_000), 0, seed=3).numpy()
    products = np.einsum("nim,njm->nij", epsilon, epsilon)
    error = products.std(0) / 200
    assert (np.abs(products.mean(0) - noise.traces) < 5 * error).all()
    assert (np.abs(products.mean(0) - 1.1 * noise.traces) > 5 * error).any()
    flat = epsilon.reshape(len(epsilon), -1)
    truth = np.kron([[1, -0.5], [-0.5, 1]], np.eye(40)) * 4 / 40
    plain = np.cov(sample.reshape(16, -1).T)
    assert np.linalg.norm(np.cov(flat.T) - truth) < 0.5 * np.linalg.norm(plain - truth)
    with pytest.raises(ValueError, match="n >= 3"):
        EmpiricalNoise(sample[:2])


def test_low_rank_noise_is_not_shrunk_away() -> None:
    """A few strong directions in many samples: λ is small, and the top eigenvalue is found."""
    rng = np.random.default_rng(0)
    strong = rng.normal(size=(200, 1, 1)) * np.ones((1, 2, 30))
    noise = EmpiricalNoise(strong + 0.1 * rng.normal(size=(200, 2, 30)))
    assert noise.shrinkage < 0.05
    top = np.linalg.eigvalsh(np.cov(noise.sample(torch.arange(5000), 0, seed=0).reshape(5000, -1).numpy().T))[-1]
    assert top == pytest.approx(60, rel=0.2)


def test_linear_scalarization_is_predicted_and_measured() -> None:
    """tr Σ_LS has the closed form 0.25(ω_1² + ω_2² + 2ρω_1ω_2); a wrong correlation is rejected by the interval."""
    result = empirical_sde(frozen(400, correlation=-0.5), [1.0, 2.0])
    linear, came = result.effective
    exact = 0.25 * (1 + 4 - 2)
    assert linear.diffusion.low < exact < linear.diffusion.high
    assert not linear.diffusion.low < 0.25 * 5 < linear.diffusion.high
    assert linear.diffusion_delta == pytest.approx(exact, rel=0.12)
    assert linear.diffusion_gaussian == pytest.approx(exact, rel=0.15)
    drift = 1 + 4 + 4 * 0.3
    assert linear.drift.low < drift < linear.drift.high
    assert linear.drift_delta == pytest.approx(drift, rel=0.1)
    assert came.name == "came-grad"


def test_gaussian_gradients_predict_came_grad_where_the_delta_method_cannot() -> None:
    """Noise three times the signal: the Gaussian prediction lies in the widened interval, for real aggregates."""
    result = empirical_sde(frozen(400, noise=3.0, correlation=0.3), [1.0, 2.0])
    came = result.effective[1]
    width = came.diffusion.high - came.diffusion.low
    assert abs(came.diffusion_gaussian - came.diffusion.value) < 2 * width
    assert result.restored.low < result.restored.value < result.restored.high


def test_local_simulation_follows_the_quadratic() -> None:
    """Without noise the change of the losses is that of gradient descent by hand."""
    g = np.repeat(np.array([[[1.0, 0.0, 0.0], [0.5, 1.0, 0.0]]]), 8, 0)
    g += 1e-6 * np.random.default_rng(0).normal(size=g.shape)
    basis, hessian = np.eye(3)[:2], np.array([np.diag([1.0, 0.0]), np.diag([0.0, 2.0])])
    inside = FrozenSet(3, np.ones((8, 2)), np.einsum("nid,njd->nij", g, g), g.astype(np.float32), None, basis, hessian)
    result = empirical_sde(inside, [1.0, 1.0], learning_rate=0.1, kappa=1.0, steps=5, paths=4, replicates=50)
    theta = np.zeros(3)
    for _ in range(5):
        slopes = g.mean(0).copy()
        slopes[0, 0] += theta[0]
        slopes[1, 1] += 2 * theta[1]
        theta -= 0.1 * slopes.sum(0)
    expected = [theta @ g.mean(0)[0] + theta[0] ** 2 / 2, theta @ g.mean(0)[1] + theta[1] ** 2]
    assert result.descent[0].name == "linear"
    assert result.descent[0].recursion == pytest.approx(expected, rel=1e-4)
    assert result.descent[0].effective == pytest.approx(expected, rel=1e-4)


def test_gradients_of_the_local_model_are_those_of_its_losses() -> None:
    rng = np.random.default_rng(2)
    hessian = rng.normal(size=(2, 3, 3))
    model = LocalModel(rng.normal(size=(2, 6)), rng.normal(size=(3, 6)), hessian + hessian.transpose(0, 2, 1))
    theta = torch.randn(6, dtype=torch.float64, requires_grad=True)
    for task, loss in enumerate(model.losses(theta)):
        (slope,) = torch.autograd.grad(loss, theta, retain_graph=True)
        assert torch.allclose(slope, model.gradients(theta)[task])


def test_distortion_is_zero_for_the_identity_and_bounded(tmp_path: Path) -> None:
    d = distortion(read_log(write_log(tmp_path / "log")))
    assert d.measured < 1e-6
    assert d.bound == pytest.approx(np.sqrt(1.67 / 40), rel=0.15)
    assert d.pairs == 60 * 3


def test_curvature_is_read_and_checked(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log")
    file = folder / "frozen-000010-curvature.safetensors"
    save_file({"basis": np.eye(40)[:3].astype(np.float32), "hessian": np.zeros((2, 3, 3))}, file)
    assert read_log(folder).frozen[0].hessian.shape == (2, 3, 3)
    assert analyze(read_log(folder), replicates=50).empirical[0].descent == []  # no learning rate in the meta data
    save_file({"basis": np.eye(40)[:3].astype(np.float32), "hessian": np.zeros((2, 2, 2))}, file)
    with pytest.raises(GradientLogError, match=r"Hessians of \(2, 2, 2\), expected"):
        read_log(folder)
    save_file({"basis": np.eye(40)[:3].astype(np.float32)}, file)
    with pytest.raises(GradientLogError, match=r"lacks \['hessian'\]"):
        read_log(folder)
    with pytest.raises(ValueError, match="needs 8 micro-batches"):
        empirical_sde(frozen(6), [1.0, 1.0])
