r"""T10, escape from a well: what noise correlation and aggregators do to first-passage times.

One dimension, double well V(x) = h(x² − 1)²: linear scalarization with two tasks whose weighted sum is V and additive
noise is dX = −V'(X)dt + √(2D)dW with D = (η/2)Σ_LS. The mean first-passage time from the bottom a = −1 to the top
b = 0 is the exact double integral

.. math:: T = \frac1D\int_a^b e^{V(y)/D}\int_{-∞}^y e^{-V(z)/D}\,dz\,dy,

and Kramers' asymptotics for small D, to the top (half of all arrivals go on), is T ≈ π e^{ΔV/D}/√(V''(a)|V''(b)|). Both
diverge as D → 0, that is, as the noise correlation goes to −1 at ω = (1, 1) and equal variances.

Both are the SDE's times. The loop's own depend on the law of the noise beyond its variance, exponentially in 1/η: its
exponent is a functional of the cumulant generating function (:mod:`sde_mtl.theory.loop_exit`), and T11's weak error
O(η) at a fixed time does not cover them.

Two dimensions, from a sharp well to a flat one (:class:`sde_mtl.problems.landscapes.DoubleWell`), every aggregator at
the same ηκ (anything else compares learning rates, T8). Measured here over linear scalarization, not derived: where the
tasks share their minimizers (offset 0) CAME-Grad escapes 1.044 ± 0.002 times as often if the noise is independent and
the weights equal, and 0.321 ± 0.001 times if the noise is anticorrelated and the weights are not. Where the tasks pull
apart across the wells (offset ½, pulls of two noise standard deviations) it escapes *more*: stage 2 gives the length of
g_J, which that pull keeps up, to a direction in which the tasks agree. CAGrad, without stage 2, escapes least.

What it does not say: that escape from a well is good; nor that these rates are those of another landscape, dimension or
noise law.
"""

import math

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from scipy.integrate import quad

from optimizers import linear
from optimizers.aggregators.by_name import aggregator
from sde_mtl.problems import AdditiveNoise, DoubleWell
from sde_mtl.simulation import Ensemble, Recursion, simulate
from sde_mtl.theory import loop_exit
from sde_mtl.theory.check import Check, in_standard_errors, require

Array = NDArray[np.float64]


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
    """Simulated first-passage times from −1 to 0: Heun's scheme, with Brownian bridges for crossings between steps.

    Heun's scheme has weak order 2 for additive noise; Euler–Maruyama's bias would be several standard errors.

    Args:
        height, D: of well and noise.
        time_step: of the scheme.
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
        kick = (2 * D * time_step) ** 0.5 * noise.sample(live, step, seed=seed)[:, 0, 0]
        drift = _pull(old, height)
        new = old + time_step * (drift + _pull(old + time_step * drift + kick, height)) / 2 + kick
        crossed = torch.exp(-old * new / (D * time_step))  # P(bridge reaches 0) for two points below it
        arrived = (new >= 0) | (torch.rand(len(live), generator=uniform, dtype=torch.float64) < crossed)
        x[inside] = new
        times[live[arrived]] = (step + 0.5) * time_step
    return times[~times.isnan()].numpy(), int(times.isnan().sum())


def _pull(x: torch.Tensor, height: float) -> torch.Tensor:
    return -4 * height * x * (x * x - 1)


RATE, KAPPA = 0.1, 1.5
ENOUGH = 10_000
"""Base number of paths below which controls of the two-dimensional comparisons could pass."""
WELLS = {
    "agreeing tasks, independent noise, equal weights": (0.0, 0.0, (0.5, 0.5)),
    "agreeing tasks, noise correlation −0.6, weights 4 : 1": (0.0, -0.6, (0.8, 0.2)),
    "disagreeing tasks, independent noise, equal weights": (0.5, 0.0, (0.5, 0.5)),
    "disagreeing tasks, noise correlation −0.6, weights 4 : 1": (0.5, -0.6, (0.8, 0.2)),
}
"""Offset, noise correlation and task weights of the two-dimensional comparisons."""
MEASURED = dict(zip(WELLS, ((1.0439, 0.0018), (0.3214, 0.0014), (1.2092, 0.0017), (2.5578, 0.0068)), strict=True))
"""Escapes of CAME-Grad over those of linear scalarization in each setting, and the standard error: 131,072 pairs of
paths of 1,000 steps with seed 11, and for the first two as many with seed 12."""


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
    rule = linear if name == "linear" else aggregator(name, **options)  # the function itself has compiled steps
    return simulate(
        Recursion(problem, noise, rule, weights, learning_rate),
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
    """Of escape rates *per step*, with the standard error of paths paired by their common noise; NaN without arrivals.

    Raises:
        ValueError: if they differ in the number of paths.
    """
    if len(one.arrivals()) != len(other.arrivals()):
        raise ValueError(f"pairs of paths needed, got {len(one.arrivals())} and {len(other.arrivals())}")
    (a, moved), (b, against) = _rate(one), _rate(other)
    if b == 0 or a == 0:
        return (0.0 if b else math.nan), math.nan
    return a / b, a / b * float((moved / a - against / b).square().sum().sqrt())


def _rate(ensemble: Ensemble) -> tuple[float, torch.Tensor]:
    """Arrivals per step spent outside, and what each path moves it by."""
    passage = ensemble.arrivals()
    arrived = (passage > 0).double()
    spent = torch.where(passage >= 0, passage, ensemble.horizon).double()
    rate = float(arrived.sum() / spent.sum())
    return rate, (arrived - rate * spent) / spent.sum()


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Integral against simulation, Kramers' limit, correlation −1, noise laws, two dimensions, and controls."""
    derive()
    height = 0.25
    n = 5 * paths // 2
    rows = []
    for name, D in (("a", 0.15), ("b", 0.1)):
        exact = mean_passage_time(height, D)
        times, late = passage_times(height, D, time_step=0.04, paths=n, seed=seed, limit=40 * exact)
        mean, error = (times.mean(), times.std(ddof=1) / n**0.5) if late == 0 else (math.nan, math.nan)
        rows.append(
            in_standard_errors(f"T10.{name}", f"mean first passage to the top, h = 0.25, D = {D}", exact, mean, error,
                               f"{n} paths, Heun dt = 0.04 with bridge correction, {late} still inside")
        )  # fmt: skip
    rows.append(in_standard_errors("T10.e", "the passage time of 1.2 times the diffusivity",
                                   mean_passage_time(height, 0.1 * 1.2), mean, error, "the paths of T10.b",
                                   control=True))  # fmt: skip
    ratios = [kramers(1.0, D) / mean_passage_time(1.0, D) for D in (0.02, 0.01)]
    errors = np.abs(np.array(ratios) - 1)
    order = float(np.log2(errors[0] / errors[1]))
    rows.append(Check("T10.c", "Kramers' relative error vanishes like D: order", 1.0, order, abs(order - 1), 0.03,
                      "absolute", "double integral at D = 0.02 and 0.01, h = 1"))  # fmt: skip
    D = diffusivity(0.1, -0.99)
    found = D * float(np.log(mean_passage_time(height, D)))
    rows.append(Check("T10.d", "D log T → ΔV as the correlation → −1: at −0.99", height, found,
                      abs(found / height - 1), 0.01, "relative", f"double integral at D = {D:.3f}"))  # fmt: skip
    return rows + loop_exit.check(seed, paths) + _check_wells(seed, paths)


def _check_wells(seed: int, paths: int) -> list[Check]:
    """CAME-Grad against LS and CAGrad in two dimensions, on common noise."""
    rows = []
    many, few = 5 * max(paths, ENOUGH) // 2, max(paths, ENOUGH) // 5
    first = next(iter(WELLS))
    for letter, setting in zip("fghi", WELLS, strict=True):
        n = many if setting == first else few
        plain = wells("linear", setting, paths=n, seed=seed)
        came = wells("came-grad", setting, learning_rate=RATE, kappa=KAPPA, paths=n, seed=seed)
        ratio, error = rate_ratio(came, plain)
        if setting == first:
            rows.append(_known(f"T10.{letter}", setting, ratio, error, n))
        rows.append(in_standard_errors(
            f"T10.{letter}{'1' if setting == first else ''}", f"CAME-Grad escapes like LS at the same ηκ: {setting}",
            1.0, ratio, error, f"{n} pairs of paths, 1,000 steps, censored rates", control=True))  # fmt: skip
    unit = wells("came-grad", setting, kappa=1.0, paths=few, seed=seed)
    differ = int((came.arrivals() != unit.arrivals()).sum())
    rows.append(Check("T10.j", "(η, κ) and (ηκ, 1) escape at the same steps (T8)", 0, differ, differ, 0, "count",
                      f"{few} paths"))  # fmt: skip
    plain, cautious = (wells(name, first, paths=few, seed=seed) for name in ("linear", "cagrad"))
    rows.append(in_standard_errors("T10.k", f"CAGrad escapes like LS at the same η: {first}", 1.0,
                                   *rate_ratio(cautious, plain), f"{few} pairs of paths", control=True))  # fmt: skip
    return rows


def check_full(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """The two-dimensional comparisons with many paths and other noise, each against what was measured before."""
    rows = []
    for letter, setting in zip("abcd", WELLS, strict=True):
        came = wells("came-grad", setting, learning_rate=RATE, kappa=KAPPA, paths=4 * paths, seed=seed + 1)
        ratio, error = rate_ratio(came, wells("linear", setting, paths=4 * paths, seed=seed + 1))
        rows.append(_known(f"T10.full-{letter}", setting, ratio, error, 4 * paths))
    return rows


def _known(name: str, setting: str, ratio: float, error: float, paths: int) -> Check:
    """A ratio of escape rates against :data:`MEASURED`, which was measured with other noise."""
    known, uncertainty = MEASURED[setting]
    return in_standard_errors(name, f"escapes of CAME-Grad over those of LS at the same ηκ: {setting}", known, ratio,
                              math.hypot(error, uncertainty), f"{paths} pairs of paths; known from ≥ 131,072 others",
                              scale=max(known, 1.0))  # fmt: skip
