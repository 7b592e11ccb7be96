import numpy as np
import pytest

from rrg.data.phantom import render, seed_of
from rrg.data.study import CONDITIONS, Finding

LATERAL = ["Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax",
           "Pleural Effusion", "Pleural Other", "Fracture"]  # fmt: skip


def difference(finding: Finding, seed: int, size: int = 128) -> np.ndarray:
    """Change of the same patient's image; positive is denser. Noise is drawn after the finding, so smooth it."""
    change = render([finding], seed=seed, size=size).astype(float) - render([], seed=seed, size=size)
    blocks = change.reshape(size // 8, 8, size // 8, 8).mean((1, 3))
    return blocks - np.median(blocks)


def test_same_seed_same_image() -> None:
    findings = [Finding("Pneumonia", "left")]
    assert np.array_equal(render(findings, seed=3), render(findings, seed=3))
    assert not np.array_equal(render(findings, seed=3), render(findings, seed=4))
    assert seed_of("CXR1") != seed_of("CXR2")


@pytest.mark.parametrize("condition", LATERAL)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_finding_shows_on_its_side(condition: str, side: str) -> None:
    """The patient's right is on the left of the image."""
    share = []
    for seed in range(6):
        change = np.abs(difference(Finding(condition, side, "lower", 0.9), seed))
        strong = np.where(change > 4, change, 0)
        half = strong[:, :8] if side == "right" else strong[:, 8:]
        share.append(half.sum() / max(strong.sum(), 1e-9))
    assert np.median(share) > 0.6


@pytest.mark.parametrize("condition", [c for c in CONDITIONS if c != "No Finding"])
def test_every_finding_can_be_seen(condition: str) -> None:
    changes = [np.abs(difference(Finding(condition, "left", "middle", 0.9), seed)).max() for seed in range(6)]
    nothing = [np.abs(difference(Finding("No Finding"), seed)).max() for seed in range(6)]
    assert np.median(changes) > 6
    assert max(nothing) < 3, "negative control: no finding changes nothing"


@pytest.mark.parametrize("condition", ["Cardiomegaly", "Pleural Effusion", "Consolidation", "Lung Lesion"])
def test_severity_grows(condition: str) -> None:
    sums = [
        np.mean([np.clip(difference(Finding(condition, "left", "lower", s), seed), 0, None).sum() for seed in range(8)])
        for s in (0.3, 0.6, 0.9)
    ]
    assert sums[0] < sums[1] < sums[2]


def test_size() -> None:
    assert render([], seed=0, size=64).shape == (64, 64)
    with pytest.raises(ValueError, match="size must be >= 16 pixels, got 8"):
        render([], seed=0, size=8)
