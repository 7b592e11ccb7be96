r"""T15, the batch size changes CAME-Grad's objective (new), and with it the linear scaling rule fails.

The noise of a mean over B examples has T ∝ 1/B, and the hidden weights c̄ = E c(M̃) of T13 depend on T. Linear
scalarization's weights do not: it rests at the minimizer of Σω_iL_i whatever B is, and (η, B) and (kη, kB) leave its
spread alone to first order in η,

.. math:: \frac{q(kη, S/k)}{q(η, S)} = \frac{2 - ηh}{2 - kηh} = 1 + O(η)

(:func:`derive`). CAME-Grad's resting point moves with B alone. For tasks of equal noise its two ends are known:

* B → ∞, no noise: the minimizer of the unweighted mean for ν < ½ (T6);
* B → 0, noise alone, d large: M̃ ∝ I, so that u* ∝ μ and ‖g_J‖/‖μ‖ = √K‖ω‖, hence

  .. math:: c_i ∝ (1-ν)\frac{‖ω‖}{\sqrt K} + νω_i .

  With ω = (1, 4), ν = 0.2 the second task has 0.553 of the weight, not 0.8.

Between the two it is not monotone: p_2 = 0.51 (B = 90,000, at η = 0.002), 0.573 (900), 0.610 (36), 0.556 (1), for
noise of standard deviation 3 an example, d = 50 and gradients of length 3.5 … 4.3 there; signal-to-noise ratios
2,500, 25, 1, 0.03.

What it does not say: which batch size is better. A schedule of batch sizes is a schedule of objectives; so is
gradient accumulation, as long as the coefficients are taken after it.
"""

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from optimizers import linear
from sde_mtl.problems import AdditiveNoise, Quadratic
from sde_mtl.simulation import Recursion, simulate
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.examples import WEIGHTS
from sde_mtl.theory.hidden_weights import expectation, rule
from sde_mtl.theory.noisy_training import train
from sde_mtl.theory.t13_effective_scalarization import measure_rest, pair_of_centres, predict_rest, towards

Array = NDArray[np.float64]
STANDARD_ERRORS = 5.0
SPREAD = 3.0
"""Standard deviation of one component of one example's gradient noise, in either task."""
BATCHES = ((1, 0.02), (36, 0.02), (900, 0.02), (90_000, 0.002))
"""Batch sizes, and the learning rates at which they train."""
PREDICTION = 1e-4
"""Standard error of a predicted resting point from 2,500 draws."""


def derive() -> sympy.Expr:
    """Ratio of linear scalarization's stationary variances at (kη, B k) and (η, B), exactly.

    Raises:
        DerivationError: if it is not (2 − ηh)/(2 − kηh), or not 1 to first order.

    Example:
        >>> derive()
        (eta*h - 2)/(eta*h*k - 2)
    """
    eta, h, k, v = sympy.symbols("eta h k v", positive=True)

    def variance(rate: sympy.Expr, noise: sympy.Expr) -> sympy.Expr:
        return rate * noise / (h * (2 - rate * h))

    ratio = sympy.simplify(variance(k * eta, v / k) / variance(eta, v))
    require(sympy.simplify(ratio - (2 - eta * h) / (2 - k * eta * h)) == 0, "T15, linear scaling of the spread")
    require(sympy.limit(ratio, eta, 0) == 1, "T15, to first order")
    return sympy.factor(ratio)


def noise_alone(task_weights: ArrayLike, nu: float = 0.2) -> Array:
    """Shares of the hidden weights for equal noise and no signal in high dimension, (K,).

    Args:
        task_weights: (K,).
        nu: of CAME-Grad, with the mean as its centre.

    Example:
        >>> noise_alone([1.0, 4.0]).round(3).tolist()
        [0.447, 0.553]
    """
    w = np.asarray(task_weights, np.float64)
    c = (1 - nu) * np.linalg.norm(w) / np.sqrt(len(w)) + nu * w
    return np.asarray(c / c.sum())


def predict_rests(*, samples: int = 10_000, seed: int = 0) -> dict[int, float]:
    """p_2 of CAME-Grad on the pair of T13 by batch size.

    Args:
        samples, seed: of the draws.

    Example:
        >>> found = predict_rests()
        >>> found[36] > max(found[1], found[900])  # not monotone
        True
    """
    return {
        B: predict_rest("mean", (SPREAD / B**0.5, SPREAD / B**0.5), eta, samples=samples, seed=seed)
        for B, eta in BATCHES
    }


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Resting points by batch size in two ways, their limits, linear scalarization, and the scaling rule; k = 5."""
    derive()
    runs = max(paths // 150, 8)
    predicted = predict_rests(samples=paths // 4, seed=seed)
    measured = {
        B: measure_rest("mean", (SPREAD / B**0.5,) * 2, eta, paths=(3 if B == 1 else 1) * runs, seed=seed + 1)
        for B, eta in BATCHES
    }  # fmt: skip
    rows = [
        _row(f"T15.a{n}", f"B = {B:,}: rest at p = ĉ/Σĉ", predicted[B], measured[B], f"training, d = 50, {runs} paths")
        for n, (B, _) in enumerate(BATCHES, 1)
    ]
    rows.append(_row("T15.c", "B = 1 rests where B = 36 does", predicted[36], measured[1], "training", control=True))

    still = expectation(rule(WEIGHTS), np.zeros((2, 2)), np.eye(2), 20_000, samples=paths, seed=seed)
    limit = float(noise_alone(WEIGHTS)[1])
    share_error = float(still.coefficients_error[1] / still.coefficients.sum())
    rows.append(Check("T15.b", "noise alone, d → ∞: ((1−ν)‖ω‖/√K + νω_2)/Σ", limit, float(still.shares[1]),
                      abs(float(still.shares[1]) - limit), 2e-3, "absolute", "exact draws, d = 20,000",
                      standard_error=share_error))  # fmt: skip

    centres, levels = pair_of_centres(), (SPREAD, 0.5)
    ends = [
        train(towards(centres), rule(WEIGHTS, nu=1.0, kappa=1.0), s**2 * np.eye(2), np.full(50, 0.8), 0.02, 400,
              paths=runs * (3 if s == SPREAD else 1), seed=seed).mean(1)
        for s in levels
    ]  # fmt: skip
    means = [(float(e.mean()), float(e.std(ddof=1) / len(e) ** 0.5)) for e in ends]
    worst = max(means, key=lambda m: abs(m[0] - 0.8) / m[1])
    rows.append(_row("T15.d", "linear scalarization rests at 0.8 for B = 1 and 36", 0.8, worst,
                     "training, d = 50; the worse"))  # fmt: skip

    apart = _scaling(paths, seed)
    rows.append(Check("T15.e", "linear scaling of linear scalarization: variance at (4η, 4B) over (η, B)", apart[0],
                      apart[1], abs(apart[1] - apart[0]) / apart[2], STANDARD_ERRORS, "SE",
                      f"{10 * paths} paths of both, d = 2", standard_error=apart[2]))  # fmt: skip
    small = predict_rest("mean", (1.0, 1.0), 0.005, samples=paths // 4, seed=seed)
    start = measure_rest("mean", (1.0, 1.0), 0.005, steps=1200, paths=runs, seed=seed + 3)
    rows.append(_row("T15.f", "CAME-Grad at (η, B) = (0.005, 9)", small, start, f"training, d = 50, {runs} paths"))
    rows.append(_row("T15.g", "the same rest at (0.02, 36), as linear scaling has it", predicted[36], start,
                     f"training, d = 50, {runs} paths", control=True))  # fmt: skip
    return rows


def _scaling(paths: int, seed: int) -> tuple[float, float, float]:
    """Ratio of linear scalarization's variances at (4η, 4B) and (η, B): predicted, measured, standard error."""
    problem = Quadratic([np.eye(2), np.eye(2)], [[0.0, 0.0], [1.0, 1.0]])
    found = []
    for eta, variance in ((0.01, 1.0), (0.04, 0.25)):
        noise = AdditiveNoise.correlated([variance, variance], dimension=2)
        loop = Recursion(problem, noise, linear, WEIGHTS, eta)
        ensemble = simulate(loop, [0.8, 0.8], 200, paths=10 * paths, seed=seed)
        found.append(float(ensemble.covariance[0].trace()) / 2)
    h = sum(WEIGHTS)
    predicted = (2 - 0.01 * h) / (2 - 0.04 * h)
    # Both variances come from 2·10·paths components each, of relative error √(2/n).
    return predicted, found[1] / found[0], predicted * (2 / (20 * paths)) ** 0.5 * 2**0.5


def _row(
    name: str, claim: str, predicted: float, measured: tuple[float, float], route: str, *, control: bool = False
) -> Check:
    error = float(np.hypot(measured[1], PREDICTION))
    return Check(name, claim, predicted, measured[0], abs(measured[0] - predicted) / error, STANDARD_ERRORS, "SE",
                 route, control, standard_error=error)  # fmt: skip
