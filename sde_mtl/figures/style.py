"""The project's figures, one function each, in one style; every one is written as SVG and PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sde_mtl.gradient_logs.analysis import PAPER_CONFLICT_RATE, LogAnalysis
from sde_mtl.simulation._simulate import Ensemble
from sde_mtl.theory.t03_diffusion_decay import OrnsteinUhlenbeck

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
"""Okabe and Ito's palette, distinguishable in colour blindness."""
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE)
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "sde-mtl",
    "svg.fonttype": "none",
}


def save(figure: Figure, folder: Path, name: str) -> list[str]:
    """Write ``name.svg`` and ``name.png``; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{name}.svg", f"{name}.png"]
    with matplotlib.rc_context(STYLE):
        figure.savefig(folder / names[0], metadata={"Date": None})
        figure.savefig(folder / names[1])
    return names


def conflict(analyses: Sequence[LogAnalysis]) -> Figure:
    """Cosine between the first two task gradients over training, with the share of conflicting steps."""
    figure, axes = _rows(len(analyses))
    for axis, analysis, colour in zip(axes, analyses, COLOURS, strict=False):
        step, cosine = np.array(analysis.series["step"]), np.array(analysis.series["cosine"])
        axis.plot(step, cosine, ".", ms=2.5, color=colour, alpha=0.55)
        width = max(3, analysis.block)
        smooth = np.convolve(cosine, np.ones(width) / width, "valid")
        axis.plot(step[width // 2 : width // 2 + len(smooth)], smooth, color=colour, lw=1.3)
        axis.axhline(0, color=GREY, lw=0.8)
        r = analysis.conflict_rate
        axis.set_title(
            f"{analysis.name}: {r.value:.1%} of {analysis.steps} steps conflict "
            f"[{r.low:.1%}, {r.high:.1%}]; paper {PAPER_CONFLICT_RATE:.1%}",
            fontsize=9,
            loc="left",
        )
        axis.set_ylabel("$\\cos(g_0, g_1)$")
    axes[-1].set_xlabel("training step")
    return figure


def deviation(analyses: Sequence[LogAnalysis]) -> Figure:
    """Distribution of ∠(g_J, u*) over the steps, and the closed form T2 at the averaged moments."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        axis = figure.subplots()
        for analysis, colour in zip(analyses, COLOURS, strict=False):
            angle = np.array(analysis.series["angle"])
            axis.hist(angle, bins=40, histtype="stepfilled", color=colour, alpha=0.35, density=True)
            axis.axvline(
                analysis.angle.value, color=colour, lw=1.5, label=f"{analysis.name}: mean {analysis.angle.value:.1f}°"
            )
            if analysis.angle_predicted is not None:
                label = f"{analysis.name}: T2 at averaged moments {analysis.angle_predicted:.1f}°"
                axis.axvline(analysis.angle_predicted, color=colour, lw=1.5, ls="--", label=label)
        axis.set_xlabel("angle between $g_J$ and $u^*$ [degrees]")
        axis.set_ylabel("density over steps")
        axis.legend(fontsize=8)
        return figure


def diffusion(analyses: Sequence[LogAnalysis]) -> Figure:
    """Diffusion ratio at the frozen parameters with intervals, and its out-of-sample prediction."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.0), layout="constrained")
        axis = figure.subplots()
        for offset, (analysis, colour) in enumerate(zip(analyses, COLOURS, strict=False)):
            shift = (offset - (len(analyses) - 1) / 2) * 0.02 * max(1, analysis.steps)
            step = np.array([d.step for d in analysis.diffusion]) + shift
            ratio = np.array([d.ratio.value for d in analysis.diffusion])
            low, high = (np.array([getattr(d.ratio, end) for d in analysis.diffusion]) for end in ("low", "high"))
            bars = np.maximum(np.abs(np.stack([ratio - low, high - ratio])), 0)
            axis.errorbar(
                step, ratio, bars, fmt="o", color=colour, ms=4, capsize=3, lw=1.2, label=f"{analysis.name}: measured"
            )
            half = [d.predicted for d in analysis.diffusion]
            axis.plot(step, half, "x", color=colour, ms=6, label=f"{analysis.name}: T3 at the first half's moments")
        axis.axhline(1, color=GREY, lw=0.8)
        axis.annotate("independent noise", (0.36, 1), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                      fontsize=8, color=GREY)  # fmt: skip
        axis.set_xlabel("training step of the frozen parameters")
        axis.set_ylabel(r"tr $\Sigma_{LS}$ / $\sum_i\omega_i^2$ tr $\Sigma_{ii}$")
        figure.legend(fontsize=8, loc="outside upper center", ncols=2)
        return figure


def effective(analyses: Sequence[LogAnalysis]) -> Figure:
    """CAME-Grad's diffusion over that of LS at the same ηκ: measured, by the delta method, by Gaussian gradients."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.0), layout="constrained")
        axis = figure.subplots()
        for offset, (analysis, colour) in enumerate(zip(analyses, COLOURS, strict=False)):
            points = analysis.empirical
            shift = (offset - (len(analyses) - 1) / 2) * 0.03 * max(1, analysis.steps)
            step = np.array([p.step for p in points]) + shift
            value = np.array([p.restored.value for p in points])
            bars = [
                [p.restored.value - p.restored.low for p in points],
                [p.restored.high - p.restored.value for p in points],
            ]
            axis.errorbar(step, value, np.maximum(np.array(bars).reshape(2, -1), 0), fmt="o", ms=4, capsize=3, lw=1.2,
                          color=colour, label=f"{analysis.name}: measured")  # fmt: skip
            axis.plot(step, [p.restored_delta for p in points], "x", ms=6, color=colour,
                      label=f"{analysis.name}: delta method (T4)")  # fmt: skip
            axis.plot(step, [p.restored_gaussian for p in points], "+", ms=7, color=colour,
                      label=f"{analysis.name}: Gaussian gradients")  # fmt: skip
        axis.axhline(1, color=GREY, lw=0.8)
        axis.set_xlabel("training step of the frozen parameters")
        axis.set_ylabel(r"tr Cov $F$ / $\kappa^2$ tr $\Sigma_{LS}$")
        figure.legend(fontsize=8, loc="outside upper center", ncols=2)
        return figure


def moments(simulated: Ensemble, law: OrnsteinUhlenbeck, start: Sequence[float], learning_rate: float) -> Figure:
    """Mean and variances of the training loop against the SDE's and the recursion's closed forms."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        steps = range(int(simulated.steps[-1]) + 1)
        for axis, name, measured, error, exact, sde in (
            (left, "mean", simulated.mean, simulated.mean_error(),
             [law.discrete_mean(s, start) for s in steps], [law.mean(s * learning_rate, start) for s in steps]),
            (right, "variance", simulated.covariance.diagonal(dim1=1, dim2=2),
             simulated.covariance_error().diagonal(dim1=1, dim2=2),
             [np.diag(law.discrete_covariance(s)) for s in steps],
             [np.diag(law.covariance(s * learning_rate)) for s in steps]),
        ):  # fmt: skip
            for component, colour in zip(range(measured.shape[1]), COLOURS, strict=False):
                axis.errorbar(simulated.steps, measured[:, component], 5 * error[:, component], fmt="o", ms=3,
                              capsize=2, color=colour,
                              label=f"$\\theta_{{{component}}}$, simulated ± 5 SE")  # fmt: skip
                axis.plot(steps, np.array(exact)[:, component], color=colour, lw=1.2)
                axis.plot(steps, np.array(sde)[:, component], color=colour, lw=1, ls=":")
            axis.set_xlabel("step")
            axis.set_ylabel(name)
        left.plot([], [], color=GREY, lw=1.2, label="recursion, closed form")
        left.plot([], [], color=GREY, lw=1, ls=":", label="SDE, closed form")
        left.legend(fontsize=7)
        return figure


def _rows(count: int) -> tuple[Figure, list[Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.0 + 1.7 * count), layout="constrained")
        axes = figure.subplots(count, 1, sharex=True, squeeze=False)
        return figure, list(axes[:, 0])
