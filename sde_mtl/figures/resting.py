"""Training under several task weights at once, and its picture: when the weights decide where it rests (T6, T7)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from optimizers import came_grad_coefficients, gramian
from sde_mtl.figures.style import COLOURS, GREY, canvas
from sde_mtl.theory.t06_resting_points import KAPPA, example

Array = NDArray[np.float64]
START = (0.6, 1.0)


def trajectories(
    weights: ArrayLike,
    nu: float,
    *,
    rho: float = 0.5,
    center: Literal["mean", "weighted"] = "mean",
    steps: int = 1500,
    learning_rate: float = 0.05,
    decay: float = 25.0,
) -> Array:
    """Noiseless training by gradient descent on T6's pair of quadratics, (steps + 1, n, 2).

    The weights are scaled to sum 1, so that they share a learning rate. The step decays like 1/t after a quarter.

    Args:
        weights: (n, 2) task weights, a run each.
        nu, rho, center: of CAME-Grad.
        steps, learning_rate: of training.
        decay: steps after which the decaying rate has halved.

    Example:
        >>> ends = trajectories([[1, 4], [4, 1]], 0.2)[-1]
        >>> bool(abs(ends[0] - ends[1]).max() < 0.02)  # the weights do not matter
        True
    """
    problem = example()
    w = torch.as_tensor(np.asarray(weights, np.float64))
    w = w / w.sum(-1, keepdim=True)
    theta = torch.tensor(START, dtype=torch.float64).expand(len(w), 2)
    path = [theta]
    for t in range(steps):
        G = problem.gradients(theta)
        coefficients = came_grad_coefficients(gramian(G), w, rho=rho, kappa=KAPPA, nu=nu, center=center)
        rate = learning_rate / (1 + max(0, t - steps / 4) / decay)
        theta = theta - rate * torch.einsum("nk,nkd->nd", coefficients, G)
        path.append(theta)
    return torch.stack(path).numpy()


def weights_figure(panels: Mapping[str, Array], weights: Sequence[Sequence[float]]) -> Figure:
    """Trajectories in the plane, a panel each setting; crosses mark the minimizers of the weighted losses.

    Args:
        panels: title to (steps, n, 2) trajectories.
        weights: n pairs of task weights.

    Example:
        >>> weights = [[1, 4], [4, 1]]
        >>> len(weights_figure({"ν = 0.2": trajectories(weights, 0.2, steps=10)}, weights).axes)
        1
    """
    problem = example()
    shares = np.linspace(0, 1, 60)
    front = np.stack([problem.minimizer([s, 1 - s]).numpy() for s in shares])
    mean = problem.minimizer([0.5, 0.5]).numpy()
    with canvas(5.6, 3.3, columns=len(panels), sharey=True) as (figure, axes):
        for axis, (title, paths) in zip(axes, panels.items(), strict=True):
            axis.plot(*front.T, color=GREY, lw=1, ls="--", label="Pareto set")
            for run, (pair, colour) in enumerate(zip(weights, COLOURS, strict=False)):
                axis.plot(*paths[:, run].T, color=colour, lw=1.3, label=f"ω = {pair[0]:g} : {pair[1]:g}")
                axis.plot(*problem.minimizer(pair).numpy(), "x", color=colour, ms=8, mew=2)
                axis.plot(*paths[-1, run], "o", color=colour, ms=5)
            axis.plot(*mean, "s", mfc="none", color="black", ms=11, label="mean's minimizer")
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("$\\theta_1$")
        axes[0].set_ylabel("$\\theta_2$")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9.5)
        return figure
