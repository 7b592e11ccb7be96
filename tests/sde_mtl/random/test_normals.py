import numpy as np
import pytest
import torch
from scipy import stats

from sde_mtl.random._normals import AdditiveNoise, normals, philox

KNOWN_ANSWERS = [
    ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: tuple[int, ...], key: int, expected: str) -> None:
    words = philox(tuple(torch.tensor([c]) for c in counter), key)  # type: ignore[arg-type]
    assert " ".join(f"{word.item():08x}" for word in words) == expected


def test_a_path_does_not_depend_on_its_company() -> None:
    alone = normals(torch.tensor([123_456]), 17, 5, seed=2**63)
    among = normals(torch.arange(123_400, 123_500), 17, 5, seed=2**63)
    assert torch.equal(alone[0], among[56])


def test_normals_are_standard_and_independent() -> None:
    """Kolmogorov–Smirnov at p > 1e-4 and correlations within 5 SE, over components, steps and seeds."""
    z = torch.stack([normals(torch.arange(20_000), step, 5, seed=seed) for step in (0, 1) for seed in (0, 1)])
    columns = z.permute(0, 2, 1).reshape(20, -1).numpy()
    assert min(stats.kstest(column, "norm").pvalue for column in columns) > 1e-4
    correlations = np.corrcoef(columns) - np.eye(20)
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)
    assert stats.kstest(columns[0] * 1.1, "norm").pvalue < 1e-4, "negative control: 10 % too wide is seen"


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
    with pytest.raises(ValueError, match="seed = -1"):
        normals(torch.arange(2), 0, 1, seed=-1)
    with pytest.raises(ValueError, match="step = -1"):
        normals(torch.arange(2), -1, 1, seed=0)
