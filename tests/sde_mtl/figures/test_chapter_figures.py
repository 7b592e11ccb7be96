import numpy as np
import pytest
import torch
from matplotlib.patches import Ellipse

from optimizers import came_grad, linear
from sde_mtl import Recursion, figures, simulate
from sde_mtl.book import kept_result, read_excerpt
from sde_mtl.theory import t01_interaction as t01
from sde_mtl.theory import t02_drift_deviation as t02
from sde_mtl.theory import t03_diffusion_decay as t03


def test_decomposition_adds_up_to_the_identity() -> None:
    log = read_excerpt(kept_result("gradient-log-excerpt.json"))
    lines = figures.gradient_logs.decomposition(log).axes[0].lines
    squares = np.einsum("nii,i->n", log.gramian, log.task_weights**2)
    total = squares * (1 + np.asarray(lines[0].get_ydata()) + np.asarray(lines[1].get_ydata()))
    assert total == pytest.approx(t01.squared_norm(log.gramian, log.task_weights))


def test_bars_below_zero_are_harmed_tasks() -> None:
    M = np.array([[1.0, -0.5], [-0.5, 1.0]])
    bars = figures.gradient_logs.directions(M, ("a", "b"), {"1 : 4": np.array([1.0, 4.0])}).axes[0].patches
    assert [bar.get_height() < 0 for bar in bars] == t02.predict(1.0, 2 * np.pi / 3, (1, 4)).harms.tolist()


def test_dots_lie_on_the_curves() -> None:
    angles = np.array([1.0, 2.0, 2.9])
    for ratio in (0.5, 2.0):
        prediction = t02.predict(ratio, angles, (1.0, 4.0))
        between, joint, rectified = figures.deviation.measured(ratio, angles, (1.0, 4.0), dimension=20)
        assert between == pytest.approx(prediction.angle, abs=1e-7)
        assert joint == pytest.approx(prediction.worst_joint)
        assert rectified == pytest.approx(prediction.worst_rectified)


def test_plane_refuses_gradients_that_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        figures.plane.stages(np.ones((3, 2)), [1.0, 1.0, 1.0])


def test_the_tip_of_u_is_drawn_where_the_solver_puts_it() -> None:
    pair, rho = [[-2.0, -2.0], [-1.0, 2.0]], 0.25
    axis = figures.plane.trust_regions({"pair": pair}, rho).axes[0]
    tips = np.array([text.xy for text in axis.texts if hasattr(text, "xy")])
    expected = came_grad(torch.tensor(pair).double(), rho=rho).rectified.numpy()
    assert np.abs(tips - expected).max(1).min() < 1e-12


def test_marked_minimum_is_that_of_the_drawn_curve() -> None:
    axis = figures.dual.objective({"pair": [[1.0, 0.0], [-0.6, 0.9]]}).axes[0]
    curve, mark = axis.lines[0].get_xydata(), axis.lines[1].get_xydata()
    assert mark[0] == pytest.approx(curve[curve[:, 1].argmin()], abs=2e-3)


def test_paths_and_clouds_are_drawn() -> None:
    problem, noise = t03.example()
    law = t03.OrnsteinUhlenbeck.of(problem, noise, t03.WEIGHTS, t03.LEARNING_RATE)
    loop = Recursion(problem, noise, linear, t03.WEIGHTS, t03.LEARNING_RATE)
    run = simulate(loop, t03.START, 40, paths=400, record=range(41), keep=range(400))
    assert len(figures.paths.band(run, law, t03.START).axes[0].lines) == 401
    axis = figures.paths.clouds({"a": run}, {"a": law}).axes[0]
    (ellipse,) = [patch for patch in axis.patches if isinstance(patch, Ellipse)]
    inside = ellipse.contains_points(axis.transData.transform(run.kept[:, -1].numpy()))
    assert inside.mean() == pytest.approx(0.95, abs=4 * (0.05 * 0.95 / 400) ** 0.5)
