"""The theory's figures by name: what each computes and how it is drawn; ``sde-mtl figures`` writes them."""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from sde_mtl.figures import theory as theory_figures
from sde_mtl.theory import descent, kinks, pair
from sde_mtl.theory import t02_drift_deviation as t02
from sde_mtl.theory import t04_effective_diffusion as t04
from sde_mtl.theory import t10_escape as t10
from sde_mtl.theory import t11_orders as t11

NUS = (0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.44, 0.47, 0.49, 0.51, 0.53, 0.56, 0.6, 0.7, 0.8, 0.9)
RHOS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
"""Axes of the phase diagrams: denser around the boundaries."""


def drift(seed: int) -> Figure:
    """T2 over (φ, b/a) at the authors' weights 1 : 4."""
    ratios, angles = np.geomspace(0.1, 10, 161), np.linspace(0.01, np.pi - 0.01, 181)
    weights = (1.0, 4.0)
    return theory_figures.drift(ratios, angles, t02.predict(ratios[:, None], angles[None], weights), weights)


def threshold(seed: int) -> Figure:
    """κ* over (φ, b/a) for three noise correlations and two weights."""
    ratios, angles = np.geomspace(0.2, 5, 33), np.linspace(0.1, np.pi - 0.05, 37)
    settings = {
        "independent noise, ω = (½, ½)": (0.0, (0.5, 0.5)),
        "correlation −0.6, ω = (½, ½)": (-0.6, (0.5, 0.5)),
        "independent noise, ω = (1, 4)": (0.0, (1.0, 4.0)),
    }
    maps = {
        title: t04.threshold_map(ratios.tolist(), angles.tolist(), weights, correlation=correlation)
        for title, (correlation, weights) in settings.items()
    }
    return theory_figures.threshold(ratios, angles, maps)


def breakdown(seed: int) -> Figure:
    """Noise at which the delta method stops predicting CAME-Grad's diffusion."""
    scales = np.geomspace(1e-3, 2, 12).tolist()
    pairs = {"φ = 60°": 60.0, "φ = 120°": 120.0, "φ = 170°": 170.0}
    results = {label: kinks.breakdown(1.0, np.deg2rad(phi), scales, seed=seed) for label, phi in pairs.items()}
    distances = {label: kinks.kink_distance(pair(1.0, np.deg2rad(phi))) for label, phi in pairs.items()}
    return theory_figures.breakdown(scales, results, distances)


def phases(seed: int) -> Figure:
    """Resting points over (ν, ρ), by gradient descent and by Adam."""
    return theory_figures.phases([descent.phase_diagram(NUS, RHOS, adam=adam) for adam in (False, True)])


def chatter(seed: int) -> Figure:
    """Amplitude of the sliding mode below ν = ½, whatever ν is, and its absence with the weighted centre (T7)."""
    etas = np.geomspace(2e-3, 2e-2, 5).tolist()
    amplitudes = {
        "ν = 0.2": descent.chatter(etas, nu=0.2, steps=8000),
        "ν = 0.4": descent.chatter(etas, nu=0.4, steps=8000),
        'center="weighted", ν = 0.2': descent.chatter(etas, nu=0.2, center="weighted", steps=8000),
    }
    return theory_figures.chatter(etas, amplitudes)


def escape(seed: int) -> Figure:
    """Four settings of the two-dimensional wells."""
    return theory_figures.escape({setting: t10.matched(setting, seed=seed) for setting in t10.WELLS})


def passage(seed: int) -> Figure:
    """First-passage time against 1/D at h = 0.25."""
    D = np.array([0.3, 0.2, 0.15, 0.1, 0.08])
    exact = np.array([t10.mean_passage_time(0.25, d) for d in D])
    means, errors = [], []
    for d, time in zip(D, exact, strict=True):
        times, _ = t10.passage_times(0.25, d, time_step=0.02, paths=2000, seed=seed, limit=40 * time)
        means.append(times.mean())
        errors.append(times.std(ddof=1) / len(times) ** 0.5)
    asymptotic = np.array([t10.kramers(0.25, d) for d in D])
    return theory_figures.passage(D, exact, asymptotic, np.array(means), np.array(errors))


def orders(seed: int) -> Figure:
    """Strong orders for additive and multiplicative noise."""
    errors = {kind: t11.strong_errors(kind, paths=1000, seed=seed) for kind in ("additive", "multiplicative")}
    return theory_figures.orders(2.0 ** -np.array(t11.LEVELS), errors)


GALLERY: dict[str, Callable[[int], Figure]] = {
    "drift": drift,
    "threshold": threshold,
    "breakdown": breakdown,
    "phases": phases,
    "chatter": chatter,
    "escape": escape,
    "passage": passage,
    "orders": orders,
}
