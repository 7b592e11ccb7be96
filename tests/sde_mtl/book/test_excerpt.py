import json
from pathlib import Path

import numpy as np
import pytest

from sde_mtl import GradientLogError
from sde_mtl.book.excerpt import cosines_with, excerpt, read_excerpt
from sde_mtl.book.results import cached_result

KEPT = "gradient-log-excerpt.json"


def test_excerpt_survives_the_round_trip(tmp_path: Path) -> None:
    log = read_excerpt(cached_result(KEPT))
    path = tmp_path / "again.json"
    path.write_text(json.dumps(excerpt(log)))
    again = read_excerpt(path)
    assert np.array_equal(again.gramian, log.gramian)
    assert np.array_equal(again.losses, log.losses)
    assert again.steps.tolist() == log.steps.tolist()


def test_excerpt_has_a_provenance() -> None:
    provenance = json.loads(cached_result("gradient-log-excerpt.provenance.json").read_text())
    assert provenance["file"] == KEPT
    assert {"command", "versions", "date", "trained_at_commit"} <= provenance.keys()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda content: content | {"format": "other"}, "other"),
        (lambda content: content | {"gramian": content["gramian"][:-1]}, "shape"),
        (lambda content: {k: v for k, v in content.items() if k != "losses"}, "losses"),
    ],
)
def test_damaged_excerpts_are_named(damage: object, named: str, tmp_path: Path) -> None:
    content = json.loads(cached_result(KEPT).read_text())
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(damage(content)))  # type: ignore[operator]
    with pytest.raises(GradientLogError, match=named) as caught:
        read_excerpt(path)
    assert str(path) in str(caught.value)


def test_cosines_from_the_gramian_are_those_of_vectors() -> None:
    rng = np.random.default_rng(0)
    G, w = rng.normal(size=(5, 3, 7)), np.array([1.0, 4.0, 0.5])
    joint = np.einsum("k,nkd->nd", w, G)
    expected = np.einsum("nkd,nd->nk", G, joint) / (
        np.linalg.norm(G, axis=-1) * np.linalg.norm(joint, axis=-1)[:, None]
    )
    assert cosines_with(G @ G.transpose(0, 2, 1), w) == pytest.approx(expected)
