import numpy as np
import pytest
from matplotlib.patches import Ellipse

from optimizers import linear
from sde_mtl import Recursion, simulate
from sde_mtl.book.excerpt import read_excerpt
from sde_mtl.book.results import cached_result
from sde_mtl.figures import deviation as deviation_figures
from sde_mtl.figures import dual as dual_figures
from sde_mtl.figures import gradient_logs as conflict_figures
from sde_mtl.figures import paths as path_figures
from sde_mtl.figures import plane as plane_figures
from sde_mtl.theory import t01_interaction as t01
from sde_mtl.theory import t02_drift_deviation as t02
from sde_mtl.theory import t03_diffusion_decay as t03


def test_decomposition_adds_up_to_the_identity() -> None:
    log = read_excerpt(cached_result("gradient-log-excerpt.json"))
    lines = conflict_figures.decomposition(log).axes[0].lines
    squares = np.einsum("nii,i->n", log.gramian, log.task_weights**2)
    total = squares * (1 + np.asarray(lines[0].get_ydata()) + np.asarray(lines[1].get_ydata()))
    assert total == pytest.approx(t01.squared_norm(log.gramian, log.task_weights))


def test_bars_below_zero_are_harmed_tasks() -> None:
    M = np.array([[1.0, -0.5], [-0.5, 1.0]])
    bars = conflict_figures.directions(M, ("a", "b"), {"1 : 4": np.array([1.0, 4.0])}).axes[0].patches
    assert [bar.get_height() < 0 for bar in bars] == t02.predict(1.0, 2 * np.pi / 3, (1, 4)).harms.tolist()


def test_dots_lie_on_the_curves() -> None:
    angles = np.array([1.0, 2.0, 2.9])
    for ratio in (0.5, 2.0):
        prediction = t02.predict(ratio, angles, (1.0, 4.0))
        between, joint, rectified = deviation_figures.measured(ratio, angles, (1.0, 4.0), dimension=20)
        assert between == pytest.approx(prediction.angle, abs=1e-7)
        assert joint == pytest.approx(prediction.worst_joint)
        assert rectified == pytest.approx(prediction.worst_rectified)


def test_plane_refuses_gradients_that_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        plane_figures.stages(np.ones((3, 2)), [1.0, 1.0, 1.0])


def test_marked_minimum_is_that_of_the_drawn_curve() -> None:
    axis = dual_figures.objective({"pair": [[1.0, 0.0], [-0.6, 0.9]]}).axes[0]
    curve, mark = axis.lines[0].get_xydata(), axis.lines[1].get_xydata()
    assert mark[0] == pytest.approx(curve[curve[:, 1].argmin()], abs=2e-3)


def test_paths_and_clouds_are_drawn() -> None:
    problem, noise = t03.example()
    law = t03.OrnsteinUhlenbeck.of(problem, noise, t03.WEIGHTS, t03.LEARNING_RATE)
    loop = Recursion(problem, noise, linear, t03.WEIGHTS, t03.LEARNING_RATE)
    run = simulate(loop, t03.START, 40, paths=400, record=range(41), keep=range(400))
    assert len(path_figures.band(run, law, t03.START).axes[0].lines) == 401
    axis = path_figures.clouds({"a": run}, {"a": law}).axes[0]
    (ellipse,) = [patch for patch in axis.patches if isinstance(patch, Ellipse)]
    inside = ellipse.contains_points(axis.transData.transform(run.kept[:, -1].numpy()))
    assert inside.mean() == pytest.approx(0.95, abs=4 * (0.05 * 0.95 / 400) ** 0.5)
