"""Pictures of the gradients of training runs: analyses of their logs over training (T1 to T4), one step in detail."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sde_mtl.figures.style import BLUE, COLOURS, GREY, RED, canvas
from sde_mtl.gradient_logs import PAPER_CONFLICT_RATE, GradientLog, Interval, LogAnalysis, cosines, cosines_with

Array = NDArray[np.float64]
MARKERS = "o^sDv"
DARK = "#222222"
Checkpoint = tuple[int, Interval, tuple[float, ...]]
"""Training step, what was measured there, and what was predicted."""


def conflict(analyses: Sequence[LogAnalysis]) -> Figure:
    """Cosine between the first two task gradients over training, with the share of conflicting steps; a row each log.

    Args:
        analyses: one or more.
    """
    with canvas(6.4, 1.0 + 1.7 * len(analyses), rows=len(analyses), sharex=True) as (figure, axes):
        for axis, analysis, colour in zip(axes, analyses, COLOURS, strict=False):
            step, cosine = np.array(analysis.series["step"]), np.array(analysis.series["cosine"])
            axis.plot(step, cosine, ".", ms=2.5, color=colour, alpha=0.55)
            width = max(3, analysis.block)
            smooth = np.convolve(cosine, np.ones(width) / width, "valid")
            axis.plot(step[width // 2 : width // 2 + len(smooth)], smooth, color=colour, lw=1.3)
            axis.axhline(0, color=GREY, lw=0.8)
            r = analysis.any_conflict_with_first
            axis.set_title(
                f"{analysis.name}: {r.value:.1%} of {analysis.steps} steps conflict "
                f"[{r.low:.1%}, {r.high:.1%}]; paper {PAPER_CONFLICT_RATE:.1%}",
                fontsize=9,
                loc="left",
            )
            axis.set_ylabel("$\\cos(g_0, g_1)$")
        axes[-1].set_xlabel("training step")
        return figure


def hidden_weights(analyses: Sequence[LogAnalysis]) -> Figure:
    """The weights that CAME-Grad gives the tasks, over their sum, at every step; a row each log, a column each scope.

    Averages over neighbouring steps, in the band of their middle half; dashed, ω; in grey, equal weights. The factors
    in the titles are those of the mean coefficients, in which steps with large coefficients count more.

    Args:
        analyses: one or more, with the coefficients of at least one scope.
    """
    scopes = list(dict.fromkeys(name for analysis in analyses for name in analysis.scopes))
    titles = {"shared": "shared parameters", "all": "all parameters"}
    with canvas(
        1.5 + 3.7 * len(scopes), 0.9 + 2.1 * len(analyses), len(analyses), len(scopes), sharex=True, sharey=True
    ) as (figure, axes):
        lines: dict[str, Any] = {}
        for row, analysis in enumerate(analyses):
            for axis, name in zip(axes[row * len(scopes) :], scopes, strict=False):
                scope = analysis.scopes.get(name)
                if scope is None:
                    axis.set_axis_off()
                    continue
                step, weights = np.array(analysis.series["step"]), np.array(scope.coefficients)
                tasks = analysis.meta["tasks"]
                for task, colour in zip(range(len(tasks)), COLOURS, strict=False):
                    middle, low, high = _smoothed(weights[:, task])
                    axis.fill_between(step, low, high, color=colour, alpha=0.18, lw=0)
                    (lines[tasks[task]],) = axis.plot(step, middle, color=colour, lw=2.6 - 1.6 * task / len(tasks))
                for value in sorted(set(scope.weights)):
                    own = [task for task, weight in enumerate(scope.weights) if weight == value]
                    colour = DARK if len(own) > 1 else COLOURS[own[0] % len(COLOURS)]
                    axis.axhline(value, color=colour, lw=1.1, ls="--")
                    if name == scopes[-1]:
                        axis.annotate(
                            f"ω {', '.join(tasks[task] for task in own)}", (1, value), (3, 0),
                            xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                            fontsize=7.5, color=colour,
                        )  # fmt: skip
                axis.axhline(1 / len(tasks), color=GREY, lw=0.8)
                factors = ", ".join(
                    f"{task} × {factor.value:.2g}"
                    for task, factor in zip(tasks[1:], scope.hidden_factors[1:], strict=True)
                )
                axis.set_title(
                    f"{analysis.name}, {titles[name]}\nbeyond ω, over {tasks[0]}: {factors}",
                    fontsize=8.5,
                    loc="left",
                )
            axes[row * len(scopes)].set_ylabel(r"$c_i(t)\,/\,\sum_k c_k(t)$")
        for axis in axes[-len(scopes) :]:
            axis.set_xlabel("training step")
        entries = {
            **lines,
            "ω, asked for": Line2D([], [], color=DARK, ls="--", lw=1.1),
            "equal weights": Line2D([], [], color=GREY, lw=0.8),
        }
        figure.legend(entries.values(), entries.keys(), fontsize=8.5, loc="outside upper center", ncols=len(entries))
        return figure


def _smoothed(series: Array) -> tuple[Array, Array, Array]:
    """Mean and quartiles, (n,) each, of a tenth of the steps around each, at least 5, where they have a number."""
    half = max(2, len(series) // 20)
    around = [series[max(0, at - half) : at + half + 1] for at in range(len(series))]
    known = [part[np.isfinite(part)] if np.isfinite(part).any() else np.array([np.nan]) for part in around]
    return (
        np.array([part.mean() for part in known]),
        np.array([np.quantile(part, 0.25) for part in known]),
        np.array([np.quantile(part, 0.75) for part in known]),
    )


def deviation(analyses: Sequence[LogAnalysis]) -> Figure:
    """Distribution of ∠(g_J, u*) over the steps, and the closed form T2 at the averaged moments.

    Args:
        analyses: one or more.
    """
    with canvas(6.4, 2.8) as (figure, (axis,)):
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


def diffusion(*panels: Sequence[LogAnalysis], titles: Sequence[str] = ()) -> Figure:
    """Diffusion ratio of the weighted sum at frozen parameters with intervals, and T3's prediction of it.

    Args:
        panels: the analyses of each panel, with frozen sets.
        titles: of the panels, if there are several.

    Example:
        >>> from sde_mtl.book import kept_result, read_analyses
        >>> two, four = (read_analyses(kept_result(f"analysis-{name}.json")) for name in ("demo", "radiographs"))
        >>> len(diffusion(two, four, titles=("two tasks", "four tasks")).axes)
        2
    """
    return _at_checkpoints(
        panels,
        titles,
        r"tr $\Sigma_{LS}$ / $\sum_i\omega_i^2$ tr $\Sigma_{ii}$",
        "independent noise",
        {"predicted (T3)": "x"},
        lambda a: [(d.step, d.ratio, (d.predicted,)) for d in a.diffusion],
    )


def effective(*panels: Sequence[LogAnalysis], titles: Sequence[str] = ()) -> Figure:
    """CAME-Grad's diffusion over that of LS at the same ηκ: measured, by the delta method, by Gaussian gradients.

    Args:
        panels: the analyses of each panel, with frozen sets.
        titles: of the panels, if there are several.
    """
    return _at_checkpoints(
        panels,
        titles,
        r"tr Cov $F$ / $\kappa^2$ tr $\Sigma_{LS}$",
        "linear scalarization",
        {"delta method (T4)": "x", "Gaussian gradients": "+"},
        lambda a: [(p.step, p.restored, (p.restored_delta, p.restored_gaussian)) for p in a.empirical],
    )


def _at_checkpoints(
    panels: Sequence[Sequence[LogAnalysis]], titles: Sequence[str], quantity: str, one: str,
    predictions: Mapping[str, str], checkpoints: Callable[[LogAnalysis], list[Checkpoint]],
) -> Figure:  # fmt: skip
    """A ratio at the frozen parameters of several logs, measured with intervals and predicted, and what 1 stands for.

    ``predictions`` maps the label of each prediction of a checkpoint to its marker.
    """
    with canvas(6.4, 3.0, columns=len(panels), sharey=True) as (figure, axes):
        for axis, analyses in zip(axes, panels, strict=True):
            for offset, (analysis, colour) in enumerate(zip(analyses, COLOURS, strict=False)):
                points = checkpoints(analysis)
                shift = (offset - (len(analyses) - 1) / 2) * 0.02 * analysis.steps
                step = np.array([at for at, _, _ in points]) + shift
                value, bars = _bars([measured for _, measured, _ in points])
                axis.errorbar(step, value, bars, fmt="o", color=colour, ms=4, capsize=3, lw=1.2,
                              label=f"{analysis.name}: measured")  # fmt: skip
                for number, (label, marker) in enumerate(predictions.items()):
                    axis.plot(step, [predicted[number] for _, _, predicted in points], marker, color=colour, ms=6.5,
                              label=f"{analysis.name}: {label}")  # fmt: skip
            axis.axhline(1, color=GREY, lw=0.8, label=one)
            axis.set_xlabel("training step of the frozen parameters" if len(panels) == 1 else "training step")
        for axis, title in zip(axes, titles, strict=False):
            axis.set_title(title, fontsize=10)
        axes[0].set_ylabel(quantity)
        entries = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(entries.values(), entries.keys(), fontsize=8, loc="outside upper center", ncols=2)
        return figure


def _bars(intervals: Sequence[Interval]) -> tuple[Array, Array]:
    """Values (n,) and the lengths (2, n) of the bars below and above them."""
    value = np.array([i.value for i in intervals])
    return value, np.abs(np.array([[i.low, i.high] for i in intervals]).reshape(-1, 2).T - value)


def prediction_against_measurement(analyses: Sequence[LogAnalysis]) -> Figure:
    """CAME-Grad's diffusion at every frozen checkpoint, predicted against measured, with the diagonal.

    Args:
        analyses: with frozen sets.

    Example:
        >>> from sde_mtl.book import kept_result, read_analyses
        >>> figure = prediction_against_measurement(read_analyses(kept_result("analysis-demo.json")))
        >>> figure.axes[0].get_ylabel()
        'measured on all of them'
    """
    with canvas(5.2, 4.0) as (figure, (axis,)):
        points = [point for analysis in analyses for point in analysis.empirical]
        for label, marker, colour, values in (
            ("delta method (T4)", "x", COLOURS[1], [p.restored_delta for p in points]),
            ("Gaussian gradients through F", "o", COLOURS[0], [p.restored_gaussian for p in points]),
        ):
            measured, bars = _bars([p.restored for p in points])
            axis.errorbar(values, measured, bars, fmt=marker, color=colour, ms=6, capsize=2, lw=1, label=label)
        ends = [0.9, max([1.1, *(p.restored_delta for p in points)]) + 0.05]
        axis.plot(ends, ends, color=GREY, lw=0.8)
        axis.set_xlabel("predicted from the first half of the micro-batches")
        axis.set_ylabel("measured on all of them")
        axis.set_title(r"tr Cov $F$ / $\kappa^2$ tr $\Sigma_{LS}$", fontsize=10)
        axis.legend(fontsize=9.5, loc="upper left")
        return figure


def over_training(log: GradientLog) -> Figure:
    """Cosines of the first task's gradient with the others', and of every task's with the joint gradient.

    Args:
        log: of a run.

    Example:
        >>> from sde_mtl.book import kept_result, read_excerpt
        >>> len(over_training(read_excerpt(kept_result("gradient-log-excerpt.json"))).axes)
        2
    """
    C, with_joint = cosines(log.gramian), cosines_with(log.gramian, log.task_weights)
    with canvas(5.6, 4.6, rows=2, sharex=True, font_size=10) as (figure, (upper, lower)):
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
    with canvas(5.2, 3.0, font_size=10) as (figure, (axis,)):
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
        >>> from sde_mtl.book import kept_result, read_excerpt
        >>> log = read_excerpt(kept_result("gradient-log-excerpt.json"))
        >>> [line.get_label() for line in decomposition(log).axes[0].lines][:2]
        ['pairs with rg (printed)', 'pairs without rg (missing)']
    """
    weighted = log.gramian * log.task_weights[:, None] * log.task_weights
    squares = np.einsum("nii->n", weighted)
    kept = 2 * weighted[:, 0, 1:].sum(-1)
    missing = np.einsum("nij->n", weighted) - squares - kept
    with canvas(5.6, 3.2, font_size=10) as (figure, (axis,)):
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
