"""Pictures of the theory's results, one function each from a result object."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from sde_mtl.figures.style import BLUE, COLOURS, GREEN, GREY, ORANGE, RED, canvas
from sde_mtl.simulation import Ensemble
from sde_mtl.theory.descent import PhaseDiagram
from sde_mtl.theory.t02_drift_deviation import Deviation
from sde_mtl.theory.t06_resting_points import boundaries
from sde_mtl.theory.t10_escape import rate_ratio

Array = NDArray[np.float64]
SEQUENTIAL, DIVERGING = "viridis", "PuOr"


def drift(ratios: Array, angles: Array, deviation: Deviation, weights: Sequence[float]) -> Figure:
    """Maps of ∠(g_J, u*) and of the worst task's improvement by g_J and u*, over angle and norm ratio (T2).

    Args:
        ratios: (R,) of b/a.
        angles: (A,) φ in radians.
        deviation: T2's prediction on the (R, A) grid.
        weights: (2,) task weights.
    """
    degrees = np.degrees(angles)
    panels = (
        (np.degrees(deviation.angle), r"angle between $g_J$ and $u^*$ [°]", SEQUENTIAL, 0, 180),
        (deviation.worst_joint, r"worst task under $g_J$: $\min_i\cos(g_i, g_J)$", DIVERGING, -1, 1),
        (deviation.worst_rectified, r"worst task under $u^*$: $\min_i\cos(g_i, u^*)$", DIVERGING, -1, 1),
    )
    with canvas(9.6, 3.2, columns=3, sharey=True) as (figure, axes):
        for axis, (values, title, colours, low, high) in zip(axes, panels, strict=True):
            mesh = axis.pcolormesh(degrees, ratios, values, cmap=colours, vmin=low, vmax=high, rasterized=True)
            for task, colour in ((0, RED), (1, BLUE)):
                axis.contour(degrees, ratios, deviation.harms[..., task].astype(float), [0.5], colors=[colour],
                             linewidths=1.5)  # fmt: skip
            axis.set_yscale("log")
            axis.grid(False)
            axis.set_title(title, fontsize=8.5)
            axis.set_xlabel("angle φ between the tasks [°]")
            figure.colorbar(mesh, ax=axis, shrink=0.9)
        axes[0].set_ylabel("norm ratio b/a")
        handles = [Line2D([], [], color=c, label=f"$g_J$ harms task {t}") for t, c in ((1, RED), (2, BLUE))]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8,
                      title=f"ω = ({weights[0]:g}, {weights[1]:g}); inside the line", title_fontsize=8)  # fmt: skip
        return figure


def threshold(ratios: Array, angles: Array, maps: Mapping[str, Array]) -> Figure:
    """Restoration threshold κ* over angle and norm ratio, a panel each setting; the paper's κ = 1.5 drawn in (T4).

    Args:
        ratios: (R,) of b/a.
        angles: (A,) φ in radians.
        maps: title of the panel to κ* on the (R, A) grid.

    Example:
        >>> maps = {"a": np.array([[0.8, 1.2], [0.9, 1.6]])}
        >>> threshold(np.array([0.5, 2.0]), np.array([1.0, 2.0]), maps).axes[0].get_title()
        'a'
    """
    degrees = np.degrees(angles)
    with canvas(3.1 * len(maps) + 0.6, 3.0, columns=len(maps), sharey=True) as (figure, axes):
        for axis, (title, values) in zip(axes, maps.items(), strict=True):
            mesh = axis.pcolormesh(degrees, ratios, values, cmap=DIVERGING, vmin=0.4, vmax=1.6, rasterized=True)
            for level, style in ((1.0, "--"), (1.5, "-")):
                if np.nanmin(values) < level < np.nanmax(values):
                    lines = axis.contour(
                        degrees, ratios, values, [level], colors="black", linestyles=style, linewidths=1
                    )
                    axis.clabel(lines, fmt={level: f"κ* = {level:g}"}, fontsize=7)
            axis.set_yscale("log")
            axis.grid(False)
            axis.set_title(title, fontsize=8.5)
            axis.set_xlabel("angle φ [°]")
        axes[0].set_ylabel("norm ratio b/a")
        figure.colorbar(mesh, ax=axes, label="restoration threshold κ*", shrink=0.9, extend="both")
        return figure


def breakdown(
    scales: Sequence[float], results: Mapping[str, tuple[Array, Array, float]], kinks: Mapping[str, float]
) -> Figure:
    """Where the delta method breaks: measured diffusion over its prediction against the noise scale (T4).

    Args:
        scales: (n,) of the noise, per component, relative to ‖g_1‖.
        results: label to (measured (n,), standard error (n,), prediction).
        kinks: label to the distance of the nearest kink; a third of it is drawn as where the method should end.
    """
    with canvas(6.0, 3.0) as (figure, (axis,)):
        for (label, (measured, error, predicted)), colour in zip(results.items(), COLOURS, strict=False):
            axis.errorbar(scales, measured / predicted, 2 * error / predicted, fmt="o-", ms=3, lw=1, capsize=2,
                          color=colour, label=label)  # fmt: skip
            axis.axvline(kinks[label] / 3, color=colour, lw=1.2, ls=":")
        axis.plot([], [], color=GREY, lw=1.2, ls=":", label="a third of the way to the nearest kink")
        axis.axhline(1, color=GREY, lw=0.8)
        axis.set_xscale("log")
        axis.set_xlabel("noise per component, relative to ‖$g_1$‖")
        axis.set_ylabel("measured tr Cov F / tr JΣJᵀ")
        axis.legend(fontsize=8)
        return figure


def phases(diagrams: Sequence[PhaseDiagram]) -> Figure:
    """Where training rests over (ν, ρ), with both predicted boundaries; LS with equal weights in words (T6).

    Args:
        diagrams: a panel each.

    Example:
        >>> from sde_mtl.book import kept_result, read_phases
        >>> [axis.get_title() for axis in phases(read_phases(kept_result("phases.json"))).axes][:2]
        ['gradient descent', 'Adam']
    """
    with canvas(3.6 * len(diagrams) + 0.8, 3.4, columns=len(diagrams), sharey=True) as (figure, axes):
        for axis, diagram in zip(axes, diagrams, strict=True):
            mesh = axis.pcolormesh(diagram.nus, diagram.rhos, diagram.position, cmap=DIVERGING, vmin=0, vmax=1,
                                   shading="nearest", rasterized=True)  # fmt: skip
            fine = np.linspace(diagram.rhos.min(), diagram.rhos.max(), 200)
            axis.plot(
                [boundaries(r)[0] for r in fine], fine, color=GREEN, lw=1.6, ls="--", label=r"$c_\rho/(1+c_\rho)$"
            )
            axis.axvline(0.5, color="black", lw=1.6, label="½")
            axis.set_title("Adam" if diagram.adam else "gradient descent", fontsize=9)
            axis.set_xlabel("fusion share ν")
            axis.text(0.02, 0.03, f"control, LS with\nequal weights: {np.abs(diagram.control).max() + 0:.2f}",
                      transform=axis.transAxes, fontsize=7.5, color="white")  # fmt: skip
            axis.grid(False)
        axes[0].set_ylabel("trust region ρ")
        axes[0].legend(fontsize=8, loc="upper left", frameon=True)
        bar = figure.colorbar(mesh, ax=axes, shrink=0.9)
        bar.set_ticks([0, 1], labels=["mean's\nminimizer", "weighted\nminimizer"])
        return figure


def chatter(learning_rates: Sequence[float], amplitudes: Mapping[str, Array]) -> Figure:
    """Distance from the resting point at constant learning rates (T6, T7).

    Args:
        learning_rates: (n,) η.
        amplitudes: label to (n,) root mean square distances; below 1e-16 they are drawn there.

    Example:
        >>> chatter([0.01, 0.02], {"ν = 0.2": np.array([0.1, 0.2])}).axes[0].get_xscale()
        'log'
    """
    with canvas(4.6, 3.0) as (figure, (axis,)):
        for (label, values), colour in zip(amplitudes.items(), COLOURS, strict=False):
            axis.loglog(learning_rates, np.maximum(values, 1e-16), "o-", ms=4, lw=1, color=colour, label=label)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("learning rate η")
        axis.set_ylabel("root mean square distance")
        axis.legend(fontsize=8)
        return figure


def escape(runs: Mapping[str, Mapping[str, Ensemble]]) -> Figure:
    """Escape rates over linear scalarization's at the same ηκ, a group of bars each setting (T10).

    Args:
        runs: setting to aggregator to ensemble, with "linear" among the aggregators.
    """
    names = [name for name in next(iter(runs.values())) if name != "linear"]
    with canvas(7.2, 3.4) as (figure, (axis,)):
        for offset, (name, colour) in enumerate(zip(names, (ORANGE, GREEN, BLUE), strict=False)):
            ratios = [rate_ratio(group[name], group["linear"]) for group in runs.values()]
            place = np.arange(len(runs)) + 0.26 * (offset - (len(names) - 1) / 2)
            axis.bar(place, [r or np.nan for r, _ in ratios], 0.24, color=colour, label=name)
            axis.errorbar(
                place, [r for r, _ in ratios], [2 * e for _, e in ratios], fmt="none", color="black", capsize=2, lw=1
            )
        axis.axhline(1, color=GREY, lw=0.8)
        axis.set_yscale("log")
        axis.set_ylabel("escape rate / that of LS")
        axis.set_xticks(range(len(runs)), [key.replace(", ", "\n") for key in runs], fontsize=7.5)
        axis.legend(fontsize=8, ncols=3, loc="upper left")
        axis.set_ylim(top=10)
        return figure


def passage(D: Array, exact: Array, asymptotic: Array, simulated: Array, error: Array) -> Figure:
    """Mean first-passage time of the one-dimensional well: double integral, Kramers, simulation (T10).

    Args:
        D: (n,) diffusivities.
        exact, asymptotic, simulated: (n,) mean times.
        error: (n,) standard errors of the simulated ones.

    Example:
        >>> passage(*np.array([[0.2, 0.1], [5.0, 9.0], [4.0, 8.0], [5.1, 8.9], [0.1, 0.2]])).axes[0].get_xlabel()
        '1 / D'
    """
    with canvas(4.6, 3.0) as (figure, (axis,)):
        axis.semilogy(1 / D, exact, color=BLUE, lw=1.4, label="double integral")
        axis.semilogy(1 / D, asymptotic, color=ORANGE, lw=1.4, ls="--", label="Kramers")
        axis.errorbar(1 / D, simulated, 2 * error, fmt="o", ms=4, color=RED, capsize=2, label="simulated ± 2 SE")
        axis.set_xlabel("1 / D")
        axis.set_ylabel("mean first-passage time")
        axis.legend(fontsize=8)
        return figure


def orders(steps: Array, errors: Mapping[str, tuple[Array, Array]]) -> Figure:
    """Strong error of Euler–Maruyama on shared Brownian paths against dt, with slopes 1 and ½ (T11).

    Args:
        steps: (n,) dt, from coarse to fine.
        errors: kind of noise to (mean (n,), standard error (n,)), additive before multiplicative.

    Example:
        >>> dt = np.array([0.5, 0.25])
        >>> len(orders(dt, {"additive": (dt, 0.01 * dt)}).axes[0].lines) > 1
        True
    """
    with canvas(4.6, 3.0) as (figure, (axis,)):
        for (label, (mean, error)), colour, order in zip(errors.items(), COLOURS, (1.0, 0.5), strict=False):
            axis.errorbar(steps, mean, 2 * error, fmt="o", ms=4, color=colour, capsize=2, label=f"{label} noise")
            axis.plot(
                steps, mean[0] * (steps / steps[0]) ** order, color=colour, lw=1, ls="--", label=f"slope {order:g}"
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("time step dt")
        axis.set_ylabel("mean strong error at t = 1")
        axis.legend(fontsize=8)
        return figure
