"""Figures over several analyses of gradient logs: what was predicted beside what was measured (T3, T4)."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sde_mtl.figures.style import COLOURS, GREY, STYLE
from sde_mtl.gradient_logs.analysis import LogAnalysis


def diffusion_ratios(groups: Mapping[str, Sequence[LogAnalysis]]) -> Figure:
    """Diffusion ratio of the weighted sum at frozen checkpoints, a panel each group, with T3's prediction.

    Args:
        groups: title to analyses with frozen sets.

    Example:
        >>> from sde_mtl.book.results import cached_result
        >>> from sde_mtl.book.saved_analysis import read_analysis
        >>> analyses = read_analysis(cached_result("analysis-demo.json"))
        >>> len(diffusion_ratios({"two tasks": analyses}).axes)
        1
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.8, 3.3), layout="constrained")
        axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axis, (title, analyses) in zip(axes, groups.items(), strict=True):
            for offset, (analysis, colour) in enumerate(zip(analyses, COLOURS, strict=False)):
                step = np.array([d.step for d in analysis.diffusion]) + 0.03 * offset * analysis.steps
                ratio = np.array([d.ratio.value for d in analysis.diffusion])
                ends = np.array([[d.ratio.low, d.ratio.high] for d in analysis.diffusion]).T
                axis.errorbar(step, ratio, np.abs(ends - ratio), fmt="o", ms=4, capsize=3, color=colour,
                              label=f"{analysis.name}: measured")  # fmt: skip
                predicted = [d.predicted for d in analysis.diffusion]
                axis.plot(step, predicted, "x", ms=7, color=colour, label=f"{analysis.name}: predicted (T3)")
            axis.axhline(1, color=GREY, lw=0.8)
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("training step")
        axes[0].set_ylim(bottom=0)
        axes[0].set_ylabel(r"tr $\Sigma_{LS}$ / $\sum_i\omega_i^2$ tr $\Sigma_{ii}$")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9.5)
        return figure


def prediction_against_measurement(analyses: Sequence[LogAnalysis]) -> Figure:
    """CAME-Grad's diffusion at every frozen checkpoint, predicted against measured, with the diagonal.

    Args:
        analyses: with frozen sets.

    Example:
        >>> from sde_mtl.book.results import cached_result
        >>> from sde_mtl.book.saved_analysis import read_analysis
        >>> figure = prediction_against_measurement(read_analysis(cached_result("analysis-demo.json")))
        >>> figure.axes[0].get_ylabel()
        'measured on all of them'
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.0), layout="constrained")
        axis = figure.subplots()
        points = [point for analysis in analyses for point in analysis.empirical]
        for label, marker, colour, values in (
            ("delta method (T4)", "x", COLOURS[1], [p.restored_delta for p in points]),
            ("Gaussian gradients through F", "o", COLOURS[0], [p.restored_gaussian for p in points]),
        ):
            measured = np.array([p.restored.value for p in points])
            bars = np.abs(np.array([[p.restored.low, p.restored.high] for p in points]).T - measured)
            axis.errorbar(values, measured, bars, fmt=marker, color=colour, ms=6, capsize=2, lw=1, label=label)
        ends = [0.9, max([1.1, *(p.restored_delta for p in points)]) + 0.05]
        axis.plot(ends, ends, color=GREY, lw=0.8)
        axis.set_xlabel("predicted from the first half of the micro-batches")
        axis.set_ylabel("measured on all of them")
        axis.set_title(r"tr Cov $F$ / $\kappa^2$ tr $\Sigma_{LS}$", fontsize=10)
        axis.legend(fontsize=9.5, loc="upper left")
        return figure
