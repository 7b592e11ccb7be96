from pathlib import Path

import numpy as np
import pytest

from sde_mtl.figures import GALLERY, save
from sde_mtl.figures.theory import escape, phases
from sde_mtl.theory import descent, t10_escape

SHORT = ("drift", "breakdown", "orders")
LONG = ("phases", "escape")  # drawn below from fewer points


@pytest.mark.parametrize(
    "name",
    [n if n in SHORT else pytest.param(n, marks=pytest.mark.slow) for n in GALLERY if n not in LONG],
)
def test_every_figure_is_drawn_and_written(name: str, tmp_path: Path) -> None:
    names = save(GALLERY[name](0), tmp_path, name)
    assert names == [f"{name}.svg", f"{name}.png"]
    assert (tmp_path / names[1]).stat().st_size > 10_000
    assert "<text" in (tmp_path / names[0]).read_text(), "text stays text in the SVG"


def test_bars_follow_the_rates() -> None:
    setting = next(iter(t10_escape.WELLS))
    runs = {setting: t10_escape.matched(setting, steps=300, paths=256)}
    bars = escape(runs).axes[0].patches
    ratio, _ = t10_escape.rate_ratio(runs[setting]["came-grad"], runs[setting]["linear"])
    assert bars[-1].get_height() == pytest.approx(ratio)


def test_phases_are_drawn_from_their_positions() -> None:
    diagram = descent.phase_diagram((0.2, 0.8), (0.3, 0.6), steps=100)
    mesh = phases([diagram]).axes[0].collections[0]
    assert np.asarray(mesh.get_array()).ravel() == pytest.approx(diagram.position.ravel())
