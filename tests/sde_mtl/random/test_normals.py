import numpy as np
import pytest
import torch
from scipy import stats

from sde_mtl.random import normals, philox

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


def test_numbers_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="seed = -1"):
        normals(torch.arange(2), 0, 1, seed=-1)
    with pytest.raises(ValueError, match="step = -1"):
        normals(torch.arange(2), -1, 1, seed=0)
