r"""T20, what task weights mean under CAME-Grad (new): predictions for eight published report generators.

Their losses are summed with weights ω. Below ν = ½ CAME-Grad replaces them by hidden ones (T6, T13), which this
module predicts.

**Orthogonal gradients in closed form.** Gradients of K tasks are orthogonal to good approximation wherever noise
dominates them: independent noise in high dimension is (T13), a_i² = ‖g_i‖² + tr Σ_ii. There the dual is solved by
filling up to a level λ,

.. math:: u^* = \sum_i m_ig_i, \quad m_i = \max\Bigl(\frac1K, \frac{λ}{a_i²}\Bigr), \quad
   \sum_i a_i²\Bigl(m_i - \frac1K\Bigr)² = ρ²‖μ‖², \qquad
   c_i = κ\Bigl[(1-ν)\frac{‖g_J‖}{‖u^*‖}m_i + νω_i\Bigr].

Proof: u* = μ + Gᵀβ with g_iᵀu* = a_i²(1/K + β_i) ≥ λ, equal where β_i > 0. At equal norms m_i is the same for all,
and

.. math:: c_i = κ\Bigl[(1-ν)\frac{‖ω‖}{\sqrt K} + νω_i\Bigr] .

**A bound.** Let m_i ≥ m_1 and ω_i ≤ ω_1, and x = ‖g_J‖/‖Kμ‖. Then for any angles

.. math:: \frac{c_i}{c_1} ≥ \frac{(1-ν)x/(1+ρ) + νω_i}{(1-ν)x/(1+ρ) + νω_1},

for m_1 ≥ 1/K, ‖u*‖ ≤ (1+ρ)‖μ‖, and the ratio grows with the common term. For orthogonal gradients of which the first
is the longest, m_i ≥ m_1 holds, and x ≥ ω_1/√K makes it a number of K, ν, ρ and ω_i/ω_1. If a task is longer than the
first it can fall below: there is no bound without an assumption on norms.

For TGRG, ω = (1, 0.04, 0.05, 0.0008), the diversity term gains a factor of 834 over the language loss at equal norms,
and at least 714 if its noisy gradient is no longer; 1,250 = 1/0.0008 is the limit ν → 0. Only DCL has equal weights:
there CAME-Grad's hidden weights equal the printed ones at equal norms, and what it does beyond that is not a change
of weights. At unequal norms even DCL's change.

What it does not say: norms and signal-to-noise ratios of the published programs; :func:`predict` takes measured ones.
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import sympy
import torch
from numpy.typing import ArrayLike, NDArray

from sde_mtl.theory.check import Check, require
from sde_mtl.theory.hidden_weights import expectation, rest_weights, rule
from sde_mtl.theory.noisy_training import train
from sde_mtl.theory.t13_effective_scalarization import towards

Array = NDArray[np.float64]
RHO, NU = 0.5, 0.2
STANDARD_ERRORS = 5.0

PUBLISHED: dict[str, dict[str, float]] = {
    "WCL": {"language": 0.8, "contrast": 0.2},
    "XProNet": {"language": 1.0, "image contrast": 1.0, "text contrast": 0.1},
    "DCL": {"language": 1.0, "contrast": 1.0, "matching": 1.0},
    "PromptMRG": {"language": 1.0, "classification": 4.0},
    "CAMANet": {"language": 1.0, "classification": 1.0, "attention": 0.15},
    "DDaTR": {"language": 1.0, "classification": 4.0},
    "TGRG": {"language": 1.0, "topics": 0.04, "alignment": 0.05, "diversity": 0.0008},
    "REVTAF": {"language": 1.0, "classification": 4.0, "alignment": 0.5, "ranking": 2.0},
}
"""Task weights ω. WCL's λ = 0.2 is from its scripts, and its contrast begins after some epochs; CAMANet's 0.15 is
assumed; TGRG's last is 0.002·rate at its largest rate, 0.4."""


def derive() -> sympy.Expr:
    """The bound on c_i/c_1 for orthogonal gradients of which the first is the longest, ω_1 = 1.

    Raises:
        DerivationError: if it does not grow with the common term, or if equal norms do not give the short form.

    Example:
        >>> sorted(map(str, derive().free_symbols))
        ['K', 'nu', 'omega', 'rho']
    """
    nu, rho, K, omega, x = sympy.symbols("nu rho K omega x", positive=True)
    ratio = ((1 - nu) * x / (1 + rho) + nu * omega) / ((1 - nu) * x / (1 + rho) + nu)
    slope = sympy.factor(sympy.together(ratio.diff(x)))
    claimed = (1 - omega) * nu * (1 - nu) / (1 + rho) / ((1 - nu) * x / (1 + rho) + nu) ** 2
    require(sympy.simplify(slope - claimed) == 0, "T20, growing in the common term")
    a, size = sympy.symbols("a size", positive=True)  # equal norms, ‖ω‖: ‖g_J‖ = a‖ω‖, u* = (1 + ρ)μ
    common = a * size / ((1 + rho) * a / sympy.sqrt(K)) * (1 + rho) / K
    require(sympy.simplify(common - size / sympy.sqrt(K)) == 0, "T20, equal norms")
    return ratio.subs(x, 1 / sympy.sqrt(K))


def predict(task_weights: ArrayLike, norms: ArrayLike | None = None, *, rho: float = RHO, nu: float = NU) -> Array:
    """Coefficients c of CAME-Grad at κ = 1 for orthogonal gradients, (K,).

    Args:
        task_weights: (K,) ω.
        norms: (K,) a_i = √(‖g_i‖² + tr Σ_ii); equal by default.
        rho, nu: of CAME-Grad.

    Raises:
        ValueError: if a norm is not positive.

    Example:
        >>> predict([1.0, 4.0]).round(3).tolist()
        [2.532, 3.132]
        >>> predict([1.0, 4.0], [1.0, 0.5]).round(3).tolist()  # a shorter gradient counts for more
        [1.428, 3.401]
    """
    w = np.asarray(task_weights, np.float64)
    a2 = np.ones_like(w) if norms is None else np.square(np.asarray(norms, np.float64))
    if not (a2 > 0).all():
        raise ValueError(f"norms must be positive, got {np.sqrt(a2).tolist()}")
    a2, tasks = a2 / a2.max(), len(w)
    radius = rho**2 * a2.sum() / tasks**2

    def excess(level: float) -> float:
        return float((a2 * np.maximum(0, level / a2 - 1 / tasks) ** 2).sum() - radius)

    m = np.full(tasks, 1 / tasks)
    if rho > 0:
        level = scipy.optimize.brentq(excess, a2.min() / tasks, a2.max() * (1 + rho) / tasks * tasks, xtol=1e-15)
        m = np.maximum(m, level / a2)
    scale = np.sqrt((w**2 @ a2) / (m**2 @ a2))
    return np.asarray((1 - nu) * scale * m + nu * w)


def bound(tasks: int, share: float, *, rho: float = RHO, nu: float = NU) -> float:
    """Lower bound of c_i/c_1 for orthogonal gradients of which the first is the longest.

    Args:
        tasks: K.
        share: ω_i/ω_1 ≤ 1.
        rho, nu: of CAME-Grad.

    Example:
        >>> round(bound(4, 0.0008) / 0.0008)  # the factor that TGRG's diversity term gains at least
        715
    """
    common = (1 - nu) / ((1 + rho) * tasks**0.5)
    return (common + nu * share) / (common + nu)


@dataclass(frozen=True)
class Prediction:
    """What CAME-Grad at ν = 0.2, ρ = ½ makes of one task's weight, relative to the language loss.

    Attributes:
        method, task: of the published program.
        printed: ω_i/ω_1.
        hidden: c_i/c_1 at equal norms and orthogonal gradients.
        factor: hidden over printed.
        shorter, longer: c_i/c_1 if this task's gradient has half, and twice, the length of the others.
        at_least: lower bound of c_i/c_1 if the language gradient is the longest; None for ω_i > ω_1.
    """

    method: str
    task: str
    printed: float
    hidden: float
    factor: float
    shorter: float
    longer: float
    at_least: float | None


def predictions() -> list[Prediction]:
    """One row for each method and each of its tasks after the language loss.

    Example:
        >>> row = predictions()[-4]
        >>> row.method, row.task, round(row.factor)
        ('TGRG', 'diversity', 834)
    """
    rows = []
    for method, weights in PUBLISHED.items():
        w = np.array(list(weights.values()))
        equal = predict(w)
        for i, task in list(enumerate(weights))[1:]:
            scaled = [predict(w, np.where(np.arange(len(w)) == i, factor, 1.0)) for factor in (0.5, 2.0)]
            printed, hidden = float(w[i] / w[0]), float(equal[i] / equal[0])
            shorter, longer = (float(c[i] / c[0]) for c in scaled)
            least = bound(len(w), printed) if printed <= 1 else None
            rows.append(Prediction(method, task, printed, hidden, hidden / printed, shorter, longer, least))
    return rows


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """The closed form against the solver and against noise, the bound, and training with TGRG's weights; k = 5."""
    derive()
    rng = np.random.default_rng(seed)
    off, below, unbounded = 0.0, 0, 0
    for _ in range(500):
        tasks, nu, rho = int(rng.integers(2, 7)), float(rng.uniform(0, 0.9)), float(rng.uniform(0.01, 0.95))
        w, a = np.exp(rng.uniform(-3, 1, tasks)), np.exp(rng.uniform(-2, 2, tasks))
        solved = rule(w, rho=rho, nu=nu, kappa=1.0)(torch.from_numpy(np.diag(a**2))).numpy()
        off = max(off, float(np.abs(predict(w, a, rho=rho, nu=nu) / solved - 1).max()))
        first = int(a.argmax())
        smaller = w <= w[first]
        limits = np.array([bound(tasks, s, rho=rho, nu=nu) for s in w / w[first]])
        below += int(((solved / solved[first] < limits - 1e-9) & smaller).sum())
        short = int(a.argmin())
        limits = np.array([bound(tasks, s, rho=rho, nu=nu) for s in w / w[short]])
        unbounded += int(((solved / solved[short] < limits - 1e-9) & (w <= w[short])).sum())

    worst, dimension = (0.0, 0.0, 0.0), 20_000
    measured = {}
    for number, (method, weights) in enumerate(PUBLISHED.items()):
        w = np.array(list(weights.values()))
        found = expectation(rule(w), 0.01 * np.eye(len(w)), np.eye(len(w)) / dimension, dimension,
                            samples=max(paths // 10, 100), seed=seed + number).coefficients  # fmt: skip
        measured[method] = found / found[0]
        expected = predict(w) / predict(w)[0]
        i = int(np.abs(measured[method] / expected - 1).argmax())
        error = abs(float(measured[method][i] / expected[i] - 1))
        worst = max(worst, (error, float(expected[i]), float(measured[method][i])))
    diversity = float(measured["TGRG"][3] / PUBLISHED["TGRG"]["diversity"])
    apart = [
        method for method in PUBLISHED if max(abs(r.factor - 1) for r in predictions() if r.method == method) > 0.05
    ]

    # Training: four quadratic tasks whose minimizers are orthogonal, TGRG's weights, noise of equal size.
    runs = max(paths // 150, 8)
    w = np.array(list(PUBLISHED["TGRG"].values()))
    centres, S = np.sqrt(10) * np.eye(4, 60), 0.5 * np.eye(4)
    r = rule(w)
    p = rest_weights(r, centres, S, learning_rate=0.03, samples=paths // 4, seed=seed)
    ends = train(towards(centres), r, S, p @ centres, 0.03, 500, paths=runs, seed=seed)[:, 3] / np.sqrt(10)
    rest, rest_error = float(ends.mean()), float(np.hypot(ends.std(ddof=1) / runs**0.5, 1e-4))
    printed_rest = float(w[3] / w.sum())
    dcl = predict([1.0, 1.0, 1.0], [1.0, 0.5, 2.0])
    return [
        Check("T20.a", "orthogonal gradients: m_i = max(1/K, λ/a_i²), largest error", 0.0, off, off, 1e-7, "relative",
              "optimizers.came_grad_coefficients, 500 random K ≤ 6, ρ, ν, norms and weights"),
        Check("T20.b", "the eight methods: c_i/c_1 under noise, the worst task", worst[1], worst[2], worst[0], 0.01,
              "relative", "exact draws, d = 20,000, signal-to-noise ratio 0.01"),
        Check("T20.c", "the bound where the first gradient is the longest; violations", 0, below, below, 0, "count",
              "500 random settings"),
        Check("T20.d", "the bound where the first gradient is the shortest; violations", 0, unbounded, unbounded, 0,
              "count", "500 random settings", control=True),
        Check("T20.e", "TGRG: the diversity term gains a factor", 834.0, diversity, abs(diversity / 834 - 1), 0.01,
              "relative", "exact draws, d = 20,000, equal norms"),
        Check("T20.f", "TGRG: a factor of 1,250", 1250.0, diversity, abs(diversity / 1250 - 1), 0.01, "relative",
              "exact draws, d = 20,000, equal norms", control=True),
        Check("T20.g", "methods with a weight changed by more than 5 %: all but DCL", 7, len(apart),
              abs(len(apart) - 7) + ("DCL" in apart), 0, "count", ", ".join(apart)),
        Check("T20.h", "DCL's weights stay equal at norms 1 : ½ : 2", 1.0, float(dcl[1] / dcl[0]),
              abs(float(dcl[1] / dcl[0]) - 1), 0.05, "relative", "closed form", control=True),
        Check("T20.i", "training with TGRG's weights: share of the diversity term at rest", float(p[3]), rest,
              abs(rest - float(p[3])) / rest_error, STANDARD_ERRORS, "SE", f"{runs} paths, K = 4, d = 60, noise √½",
              standard_error=rest_error),
        Check("T20.j", "the share that its weight prints", printed_rest, rest, abs(rest - printed_rest) / rest_error,
              STANDARD_ERRORS, "SE", f"{runs} paths, K = 4, d = 60", control=True, standard_error=rest_error),
    ]  # fmt: skip
