import numpy as np
import pytest

from sde_mtl.figures.resting import weights_figure
from sde_mtl.theory.descent import trajectories
from sde_mtl.theory.examples import example

WEIGHTS = [[1.0, 4.0], [1.0, 1.0], [4.0, 1.0]]


def minimizers() -> np.ndarray:
    return np.stack([example().minimizer(w).numpy() for w in WEIGHTS])


def test_below_one_half_the_weights_do_not_matter() -> None:
    ends = trajectories(WEIGHTS, 0.2)[-1]
    assert np.abs(ends - minimizers()[1]).max() < 0.02


@pytest.mark.parametrize(("nu", "center"), [(0.6, "mean"), (0.2, "weighted")])
def test_above_one_half_or_with_the_weighted_centre_they_do(nu: float, center: str) -> None:
    ends = trajectories(WEIGHTS, nu, center=center)[-1]  # type: ignore[arg-type]
    assert np.abs(ends - minimizers()).max() < 0.02
    assert np.abs(ends[0] - ends[2]).max() > 0.5


def test_every_run_is_drawn_to_its_end() -> None:
    paths = trajectories(WEIGHTS, 0.2, steps=30)
    lines = weights_figure({"short": paths}, WEIGHTS).axes[0].lines
    drawn = [line for line in lines if len(np.asarray(line.get_xdata())) == 31]
    assert [float(np.asarray(line.get_xdata())[-1]) for line in drawn] == paths[-1, :, 0].tolist()
