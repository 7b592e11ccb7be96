import json
from pathlib import Path

import numpy as np
import pytest

from sde_mtl import GradientLogError
from sde_mtl.book import excerpt, kept_result, read_excerpt

KEPT = "gradient-log-excerpt.json"


def test_excerpt_survives_the_round_trip(tmp_path: Path) -> None:
    log = read_excerpt(kept_result(KEPT))
    path = tmp_path / "again.json"
    path.write_text(json.dumps(excerpt(log)))
    again = read_excerpt(path)
    assert np.array_equal(again.gramian, log.gramian)
    assert np.array_equal(again.losses, log.losses)
    assert again.steps.tolist() == log.steps.tolist()


def test_excerpt_has_a_provenance() -> None:
    provenance = json.loads(kept_result("gradient-log-excerpt.provenance.json").read_text())
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
    content = json.loads(kept_result(KEPT).read_text())
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(damage(content)))  # type: ignore[operator]
    with pytest.raises(GradientLogError, match=named) as caught:
        read_excerpt(path)
    assert str(path) in str(caught.value)
