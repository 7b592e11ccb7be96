"""Training under several task weights at once in the plane: when the weights decide where it rests (T6, T7)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sde_mtl.figures.style import COLOURS, GREY, canvas
from sde_mtl.theory.examples import example

Array = NDArray[np.float64]


def weights_figure(panels: Mapping[str, Array], weights: Sequence[Sequence[float]]) -> Figure:
    """Trajectories in the plane, a panel each setting; crosses mark the minimizers of the weighted losses.

    Args:
        panels: title to (steps, n, 2) trajectories.
        weights: n pairs of task weights.

    Example:
        >>> from sde_mtl.theory.descent import trajectories
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
