"""Pictures of conflict in the gradient log of a training run: cosines over the steps, one step in detail (T1, T2)."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sde_mtl.book.excerpt import cosines, cosines_with
from sde_mtl.figures.style import BLUE, COLOURS, GREY, RED, STYLE
from sde_mtl.gradient_logs.reader import GradientLog

Array = NDArray[np.float64]
MARKERS = "o^sDv"


def over_training(log: GradientLog) -> Figure:
    """Cosines of the first task's gradient with the others', and of every task's with the joint gradient.

    Args:
        log: of a run.

    Example:
        >>> from sde_mtl.book.results import cached_result
        >>> from sde_mtl.book.excerpt import read_excerpt
        >>> len(over_training(read_excerpt(cached_result("gradient-log-excerpt.json"))).axes)
        2
    """
    C, with_joint = cosines(log.gramian), cosines_with(log.gramian, log.task_weights)
    with matplotlib.rc_context(STYLE | {"font.size": 10}):
        figure = Figure(figsize=(5.6, 4.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        for task, (name, marker, colour) in enumerate(zip(log.tasks, MARKERS, COLOURS, strict=False)):
            if task:
                upper.plot(log.steps, C[:, 0, task], marker, ms=3, color=colour, alpha=0.8, label=name)
            lower.plot(log.steps, with_joint[:, task], marker, ms=3, color=colour, alpha=0.8, label=name)
        for axis in (upper, lower):
            axis.axhline(0, color=GREY, lw=1)
        upper.set_ylabel(rf"$\cos(g_{{\mathrm{{{log.tasks[0]}}}}}, g_k)$")
        lower.set_ylabel(r"$\cos(g_i, g_J)$")
        lower.set_xlabel("training step")
        handles, names = lower.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=10, markerscale=1.6)
        return figure


def directions(gramian: Array, names: tuple[str, ...], coefficients: Mapping[str, Array]) -> Figure:
    """cos(g_i, Gᵀc) of every task at one step, for several directions Gᵀc; negative bars are harmed tasks.

    Args:
        gramian: (K, K) of the step.
        names: of the tasks.
        coefficients: label of a direction to its (K,) coefficients c.

    Example:
        >>> axis = directions(np.eye(2), ("a", "b"), {"sum": np.ones(2)}).axes[0]
        >>> [round(float(bar.get_height()), 3) for bar in axis.patches]
        [0.707, 0.707]
    """
    with matplotlib.rc_context(STYLE | {"font.size": 10}):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axis = figure.subplots()
        place, width = np.arange(len(names)), 0.8 / len(coefficients)
        for number, ((label, c), colour) in enumerate(zip(coefficients.items(), COLOURS, strict=False)):
            shift = (number - (len(coefficients) - 1) / 2) * width
            axis.bar(place + shift, cosines_with(gramian, c), width, color=colour, label=label)
        axis.axhline(0, color=GREY, lw=1)
        axis.set_xticks(place, names)
        axis.set_ylabel("cosine with the task's gradient")
        axis.grid(axis="x", visible=False)
        axis.legend(fontsize=10)
        return figure


def decomposition(log: GradientLog) -> Figure:
    """‖g_J‖² over training, split as in T1: its squares, the pairs with the first task, the pairs without it.

    Args:
        log: of a run.

    Example:
        >>> from sde_mtl.book.results import cached_result
        >>> from sde_mtl.book.excerpt import read_excerpt
        >>> log = read_excerpt(cached_result("gradient-log-excerpt.json"))
        >>> [line.get_label() for line in decomposition(log).axes[0].lines][:2]
        ['pairs with rg (printed)', 'pairs without rg (missing)']
    """
    weighted = log.gramian * log.task_weights[:, None] * log.task_weights
    squares = np.einsum("nii->n", weighted)
    kept = 2 * weighted[:, 0, 1:].sum(-1)
    missing = np.einsum("nij->n", weighted) - squares - kept
    with matplotlib.rc_context(STYLE | {"font.size": 10}):
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axis = figure.subplots()
        for values, colour, marker, label in (
            (kept, BLUE, "o", f"pairs with {log.tasks[0]} (printed)"),
            (missing, RED, "^", f"pairs without {log.tasks[0]} (missing)"),
        ):
            axis.plot(log.steps, values / squares, marker, ms=3.5, color=colour, label=label)
        axis.axhline(0, color=GREY, lw=1)
        axis.set_xlabel("training step")
        axis.set_ylabel(r"share of $\sum_i\omega_i^2\|g_i\|^2$")
        axis.legend(fontsize=10)
        return figure
