r"""T10, escape from a well: what noise correlation and aggregators do to first-passage times.

One dimension, double well V(x) = h(x² − 1)²: linear scalarization with two tasks whose weighted sum is V and additive
noise is dX = −V'(X)dt + √(2D)dW with D = (η/2)Σ_LS. The mean first-passage time from the bottom a = −1 to the top
b = 0 is the exact double integral

.. math:: T = \frac1D\int_a^b e^{V(y)/D}\int_{-∞}^y e^{-V(z)/D}\,dz\,dy,

and Kramers' asymptotics for small D, to the top (half of all arrivals go on), is T ≈ π e^{ΔV/D}/√(V''(a)|V''(b)|). Both
diverge as D → 0, that is, as the noise correlation goes to −1 at ω = (1, 1) and equal variances.

Two dimensions, from a sharp well to a flat one (:class:`sde_mtl.problems.landscapes.DoubleWell`), every aggregator at
the same ηκ (anything else compares learning rates, T8). Measured here: where the tasks share their minimizers (offset
0) CAME-Grad escapes like linear scalarization if the noise is independent and the weights equal, and three times less
often if the noise is anticorrelated and the weights are not. Where the tasks pull apart across the wells (offset ½,
pulls of two noise standard deviations) it escapes *more*: stage 2 gives the length of g_J, which that pull keeps up,
to a direction in which the tasks agree. CAGrad, without stage 2, escapes less than either.

What it does not say: that escape from a well is good; nor that these rates are those of another landscape.
"""

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from scipy.integrate import quad

from optimizers.aggregators.by_name import aggregator
from sde_mtl.problems import AdditiveNoise, DoubleWell
from sde_mtl.simulation import Ensemble, Recursion, simulate
from sde_mtl.theory.check import Check, require

Array = NDArray[np.float64]
STANDARD_ERRORS = 5.0


def derive() -> dict[str, sympy.Expr]:
    """The backward equation D T'' − V'T' = −1 of the double integral, and Kramers' curvatures.

    Returns:
        "bottom" and "top", V'' at −1 and 0 for height h.

    Raises:
        DerivationError: if the integral does not solve the equation.

    Example:
        >>> derive()
        {'bottom': 8*h, 'top': -4*h}
    """
    x, D, h = sympy.symbols("x D h", positive=True)
    V = sympy.Function("V")
    inner = sympy.Function("inner")  # ∫_{−∞}^x e^{−V/D}
    slope = -sympy.exp(V(x) / D) * inner(x) / D
    equation = D * sympy.diff(slope, x) - sympy.diff(V(x), x) * slope
    equation = equation.subs(sympy.diff(inner(x), x), sympy.exp(-V(x) / D))
    require(sympy.simplify(equation + 1) == 0, "T10, backward equation")
    well = h * (x**2 - 1) ** 2
    return {"bottom": sympy.diff(well, x, 2).subs(x, -1), "top": sympy.diff(well, x, 2).subs(x, 0)}


def diffusivity(learning_rate: float, correlation: float, variance: float = 1.0) -> float:
    """D = (η/2)Σ_LS for ω = (1, 1) and two tasks with equal noise variance.

    Example:
        >>> diffusivity(0.1, -1.0)
        0.0
    """
    return learning_rate / 2 * variance * 2 * (1 + correlation)


def mean_passage_time(height: float, D: float, *, start: float = -1.0, target: float = 0.0) -> float:
    """The exact double integral by adaptive quadrature.

    Raises:
        ValueError: for D ≤ 0, where nothing escapes.

    Example:
        >>> round(mean_passage_time(1.0, 1.0), 3)
        1.436
    """
    if D <= 0:
        raise ValueError(f"D = {D} must be > 0: without diffusion nothing escapes")

    def V(x: float) -> float:
        return height * (x * x - 1) ** 2

    def inner(y: float) -> float:
        return float(
            quad(lambda z: np.exp((V(y) - V(z)) / D), -6.0, y, limit=200, points=[-1.0] if y > -1 else None)[0]
        )

    return float(quad(inner, start, target, limit=200)[0]) / D


def kramers(height: float, D: float) -> float:
    """Kramers' time to the top, π e^{h/D}/√(8h·4h)."""
    return float(np.pi * np.exp(height / D) / np.sqrt(32) / height)


def passage_times(
    height: float, D: float, *, time_step: float, paths: int, seed: int, limit: float
) -> tuple[Array, int]:
    """Simulated first-passage times from −1 to 0, with the Brownian-bridge correction for crossings between steps.

    Args:
        height, D: of well and noise.
        time_step: of Euler–Maruyama.
        paths, seed: of the noise.
        limit: time after which a path counts as still inside.

    Returns:
        times of those that arrived, and how many did not.
    """
    noise = AdditiveNoise.correlated([1.0])
    uniform = torch.Generator().manual_seed(seed)
    numbers = torch.arange(paths)
    x = torch.full((paths,), -1.0, dtype=torch.float64)
    times = torch.full((paths,), torch.nan, dtype=torch.float64)
    for step in range(int(limit / time_step)):
        inside = times.isnan()
        if not inside.any():
            break
        live = numbers[inside]
        old = x[inside]
        drift = -4 * height * old * (old**2 - 1)
        new = old + time_step * drift + (2 * D * time_step) ** 0.5 * noise.sample(live, step, seed=seed)[:, 0, 0]
        crossed = torch.exp(-old * new / (D * time_step))  # P(bridge reaches 0) for two points below it
        arrived = (new >= 0) | (torch.rand(len(live), generator=uniform, dtype=torch.float64) < crossed)
        x[inside] = new
        times[live[arrived]] = (step + 0.5) * time_step
    return times[~times.isnan()].numpy(), int(times.isnan().sum())


RATE, KAPPA = 0.1, 1.5
WELLS = {
    "agreeing tasks, independent noise, equal weights": (0.0, 0.0, (0.5, 0.5)),
    "agreeing tasks, noise correlation −0.6, weights 4 : 1": (0.0, -0.6, (0.8, 0.2)),
    "disagreeing tasks, independent noise, equal weights": (0.5, 0.0, (0.5, 0.5)),
    "disagreeing tasks, noise correlation −0.6, weights 4 : 1": (0.5, -0.6, (0.8, 0.2)),
}
"""Offset, noise correlation and task weights of the two-dimensional comparisons."""


def wells(
    name: str,
    setting: str,
    *,
    learning_rate: float = RATE * KAPPA,
    steps: int = 1000,
    paths: int = 2048,
    seed: int = 0,
    **options: float,
) -> Ensemble:
    """Training from the bottom of the sharp well: first passage to θ_1 > 0.8, occupation of the flat half θ_1 > 0.

    Args:
        name, options: of the aggregator.
        setting: a key of :data:`WELLS`.
        learning_rate: η; with κ it should match the others' ηκ.
        steps, paths, seed: of the simulation.
    """
    offset, correlation, weights = WELLS[setting]
    problem = DoubleWell(0.25, sharp=8.0, flat=0.5, offset=offset)
    noise = AdditiveNoise.correlated([1.0, 1.0], correlation=correlation, dimension=2)
    return simulate(
        Recursion(problem, noise, aggregator(name, **options), weights, learning_rate),
        [-1.0, 0.0],
        steps,
        paths=paths,
        seed=seed,
        target=lambda theta: theta[:, 0] > 0.8,
        region=lambda theta: theta[:, 0] > 0,
    )


def matched(setting: str, *, steps: int = 1000, paths: int = 2048, seed: int = 0) -> dict[str, Ensemble]:
    """LS, LS with equal weights, CAGrad and CAME-Grad at one ηκ in one setting."""
    options = {"steps": steps, "paths": paths, "seed": seed}
    runs = {name: wells(name, setting, **options) for name in ("linear", "equal", "cagrad")}
    return {**runs, "came-grad": wells("came-grad", setting, learning_rate=RATE, kappa=KAPPA, **options)}


def rate_ratio(one: Ensemble, other: Ensemble) -> tuple[float, float]:
    """Of escape rates *per step*, with the standard error of independent samples; NaN if the other has none."""
    (a, da), (b, db) = one.passage_rate(), other.passage_rate()
    scale = one.time_step / other.time_step
    a, da = a * scale, da * scale
    if b == 0:
        return float("nan"), float("nan")
    return a / b, ((da / b) ** 2 + (a * db / b**2) ** 2) ** 0.5


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Integral against simulation, Kramers' limit, divergence at correlation −1, and a control."""
    derive()
    height = 0.25
    n = max(1000, paths // 2)
    rows = []
    for name, D in (("a", 0.15), ("b", 0.1)):
        exact = mean_passage_time(height, D)
        times, late = passage_times(height, D, time_step=0.02, paths=n, seed=seed, limit=40 * exact)
        error = times.std(ddof=1) / len(times) ** 0.5
        rows.append(
            Check(f"T10.{name}", f"mean first passage to the top, h = 0.25, D = {D}", exact, float(times.mean()),
                  float(abs(times.mean() - exact) / error) if late == 0 else float("nan"), STANDARD_ERRORS, "SE",
                  f"{n} paths, Euler–Maruyama dt = 0.02 with bridge correction, {late} still inside")
        )  # fmt: skip
    ratios = [kramers(1.0, D) / mean_passage_time(1.0, D) for D in (0.1, 0.05, 0.025)]
    errors = np.abs(np.array(ratios) - 1)
    order = float(np.log2(errors[1] / errors[2]))
    rows.append(Check("T10.c", "Kramers' relative error vanishes like D: order", 1.0, order, abs(order - 1), 0.15,
                      "absolute", "double integral at D = 0.05 and 0.025, h = 1"))  # fmt: skip
    near, nearer = (np.log(mean_passage_time(height, diffusivity(0.1, c))) * diffusivity(0.1, c) for c in (-0.9, -0.95))
    rows.append(Check("T10.d", "D log T → ΔV as the correlation → −1", height, float(nearer),
                      max(0.0, float(abs(nearer - height) / abs(near - height)) - 1), 0.0, "absolute",
                      f"double integral; {float(near):.4f} at −0.9, {float(nearer):.4f} at −0.95"))  # fmt: skip
    times, _ = passage_times(height, 0.1, time_step=0.02, paths=n, seed=seed, limit=40 * exact)
    wrong = mean_passage_time(height, 0.1 * 1.2)
    rows.append(Check("T10.e", "the passage time of 1.2 times the diffusivity", wrong, float(times.mean()),
                      float(abs(times.mean() - wrong) / (times.std() / len(times) ** 0.5)), STANDARD_ERRORS, "SE",
                      f"{n} paths", control=True))  # fmt: skip
    return rows + _check_wells(seed)


def _check_wells(seed: int) -> list[Check]:
    """CAME-Grad against LS and CAGrad in two dimensions; their common noise makes the standard errors conservative."""
    rows = []
    plain = {setting: wells("linear", setting, seed=seed) for setting in WELLS}
    for letter, (setting, control) in zip("fghi", zip(WELLS, (False, True, True, True), strict=True), strict=True):
        came = wells("came-grad", setting, learning_rate=RATE, kappa=KAPPA, seed=seed)
        ratio, error = rate_ratio(came, plain[setting])
        rows.append(Check(f"T10.{letter}", f"CAME-Grad escapes like LS at the same ηκ: {setting}", 1.0, ratio,
                          abs(ratio - 1) / error, STANDARD_ERRORS, "SE", "2,048 paths, 1,000 steps, censored rates",
                          control=control))  # fmt: skip
    unit = wells("came-grad", setting, kappa=1.0, seed=seed)
    differ = int((came.arrivals() != unit.arrivals()).sum())
    rows.append(Check("T10.j", "(η, κ) and (ηκ, 1) escape at the same steps (T8)", 0, differ, differ, 0, "count",
                      "2,048 paths"))  # fmt: skip
    first = next(iter(WELLS))
    ratio, error = rate_ratio(wells("cagrad", first, seed=seed), plain[first])
    rows.append(Check("T10.k", "CAGrad escapes less than LS at the same η: ratio < 1", 1.0, ratio,
                      max(0.0, (ratio - 1) / error + STANDARD_ERRORS), 0.0, "SE",
                      f"{first}; at least 5 SE below"))  # fmt: skip
    return rows


def check_full(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """The two-dimensional comparisons with five times the paths and other noise; the signs must stay."""
    rows = []
    for letter, (setting, sign) in zip("abcd", zip(WELLS, (0, -1, 1, 1), strict=True), strict=True):
        came = wells("came-grad", setting, learning_rate=RATE, kappa=KAPPA, paths=paths, seed=seed + 1)
        ratio, error = rate_ratio(came, wells("linear", setting, paths=paths, seed=seed + 1))
        z = (ratio - 1) / error
        claim = {0: "like LS", -1: "less than LS", 1: "more than LS"}[sign]
        rows.append(Check(f"T10.full-{letter}", f"CAME-Grad escapes {claim}: {setting}", 1.0, ratio,
                          abs(z) if sign == 0 else max(0.0, 2 * STANDARD_ERRORS - sign * z), STANDARD_ERRORS, "SE",
                          f"{paths} paths, 1,000 steps"))  # fmt: skip
    return rows
