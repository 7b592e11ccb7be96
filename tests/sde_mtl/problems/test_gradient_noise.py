import numpy as np
import pytest
import torch

from sde_mtl.problems import AdditiveNoise


def test_block_covariance_is_met() -> None:
    """Every entry within 5 SE; the same test rejects a covariance with the cross term's sign flipped."""
    noise = AdditiveNoise.correlated([1.0, 4.0], correlation=-0.7, dimension=2)
    sample = noise.sample(torch.arange(40_000), 0, seed=3).reshape(-1, 4)
    measured = sample.T @ sample / len(sample)

    def deviation(expected: torch.Tensor) -> float:
        variance = expected.diagonal()
        error = ((expected**2 + variance[:, None] * variance) / len(sample)).sqrt()
        return float(((measured - expected).abs() / error).max())

    expected = noise.covariance.reshape(4, 4)
    assert deviation(expected) < 5
    flipped = AdditiveNoise.correlated([1.0, 4.0], correlation=0.7, dimension=2).covariance.reshape(4, 4)
    assert deviation(flipped) > 5


def test_joint_covariance_by_hand() -> None:
    noise = AdditiveNoise.correlated([1.0, 4.0], correlation=-0.5, dimension=3)
    expected = (1 + 4 * 4 - 2 * 2 * 0.5 * 2) * torch.eye(3, dtype=torch.float64)
    assert torch.allclose(noise.joint_covariance([1.0, 2.0]), expected)


def test_impossible_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"least eigenvalue is -0\.6"):
        AdditiveNoise.correlated([1.0] * 3, correlation=-0.8)
    with pytest.raises(ValueError, match=r"variances must be >= 0, got \[-1"):
        AdditiveNoise.correlated([-1.0])
    with pytest.raises(ValueError, match=r"\(K, d, K, d\), got \(2, 2\)"):
        AdditiveNoise(np.eye(2))
    with pytest.raises(ValueError, match="symmetric"):
        AdditiveNoise(np.array([[1.0, 0.5], [0.0, 1.0]]).reshape(2, 1, 2, 1))
