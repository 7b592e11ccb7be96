r"""T13, effective scalarization (new): under gradient noise CAME-Grad is linear scalarization with hidden weights.

F(G + ε) = Σc_i(M̃)(g_i + ε_i) with M̃ the noisy Gramian, for CAME-Grad and every other aggregator that sees gradients
through their Gramian. Let ε be Gaussian with Cov(ε_i, ε_j) = S_ij I, T_ij = tr Σ_ij = dS_ij, and c̄ = E c(M̃).

**Exactly.** The law of ε is invariant under rotations that leave the span of the g_i alone, and c does not notice
them, so E F lies in that span: E F = Σĉ_ig_i. By Stein's lemma, and since c depends on g_j through M only,

.. math:: E F = \sum_i \bar c_i g_i + R, \qquad
   R = \sum_{ij} S_{ij}\,E\,∇_{g_j}c_i
     = \frac1d \sum_{ijk} T_{ij}\,E\Bigl[(1+δ_{jk})\frac{∂c_i}{∂M_{jk}}\,\tilde g_k\Bigr],

with M_jk, j ≤ k, as the variables (:func:`derive`). So the hidden weights are ĉ = c̄ + correction. (c has kinks,
which the lemma allows; it jumps only where μ = 0 or g_α = 0, sets of codimension ≥ 2 for d > K.)

**The rate.** Fix T and GGᵀ and let d grow. c is homogeneous of degree 0 in M and Lipschitz where M is bounded away
from the points at which c jumps (μ = 0, g_α = 0), and E‖g̃_k‖² = T_kk + ‖g_k‖² does not depend on d. Hence ‖R‖ ≤ C/d
with C set by T and GGᵀ: E F = Σc̄_ig_i + O(1/d), and M̃ itself concentrates, Cov(M̃) = O(1/d), so that c̄ = c(T +
GGᵀ) + O(1/d) as well, or, to second order, c̄ = c + ½D²c:Cov(M̃) + O(1/d²), with the covariance in closed form
(:mod:`sde_mtl.theory.hidden_weights`). For any Σ the lemma has Σ_ij in place of S_ij I: then R leaves the span, and
‖R‖ ≤ C max‖Σ_ij‖/tr Σ, one over the effective rank of the noise.

**If c is taken from another micro-batch** it is independent of the ε that it multiplies, and E F = Σc̄_ig_i for every
d and every noise law; a resting point is then Pareto stationary where c̄ ≥ 0.

**Where training rests.** Where Σĉ_ig_i = 0. For tasks ½‖θ − c_k‖² that is p = ĉ(p)/Σĉ(p), θ = Σp_kc_k. At a finite
learning rate θ itself fluctuates, all tasks see the same displacement, and its variance q = O(η) adds q·11ᵀ to S: the
resting point depends on the learning rate. With ω = (1, 4) CAME-Grad's p_2 runs from 0.30 to 0.77 as the noise of the
two tasks changes, where the unweighted mean has 0.5 and the weighted loss 0.8; with the weighted centre (T7) from
0.38 to 0.84.

What it does not say: the noise's law beyond its covariance moves c̄ by O(1/d) more (Student noise of kurtosis 9 at d
= 50 rests 0.004 off); the constant C (near a jump of c it is large: at small noise and small d c̄ is no guide); c̄
under anisotropic noise, for which M̃ is not Wishart; noise that depends on θ. At learning rates at which CAME-Grad
chatters (T6) the fluctuation of θ is not the one predicted here.
"""

from collections.abc import Callable

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import linregress

from sde_mtl.theory.check import Check, require
from sde_mtl.theory.examples import WEIGHTS
from sde_mtl.theory.hidden_weights import (
    Rule,
    expectation,
    factor,
    plug_in,
    rest_on_line,
    rest_weights,
    rule,
    second_order,
)
from sde_mtl.theory.noisy_training import Law, gaussian, heavy_tailed, train

Array = NDArray[np.float64]
STANDARD_ERRORS = 5.0
DIMENSION = 50
LEVELS = (((0.01, 0.01), 0.002), ((0.1, 0.1), 0.02), ((0.5, 0.5), 0.02), ((3.0, 0.6), 0.02), ((0.6, 3.0), 0.02))
"""Noise of one component in either task, and learning rate, of the table of resting points."""
DIMENSIONS = (20, 50, 100, 200, 500, 1000, 2000)
"""Over which the rate of the remainder is measured."""
FAR = 200_000
"""Dimension at which its constant is measured: M̃ is then far from every kink of c."""
TRIPLE = np.array([[1.0, -0.4, 0.3], [-0.4, 2.0, 0.1], [0.3, 0.1, 0.5]]), np.array([1.0, 4.0, 0.5])
"""A Gramian and task weights, K = 3."""
TRACES = np.array([[1.0, 0.3, 0.0], [0.3, 2.0, -0.2], [0.0, -0.2, 0.6]])
"""T of its noise: correlated, signal-to-noise ratio about 1."""


def derive() -> dict[str, sympy.Expr]:
    """The chain rule through the Gramian, and Stein's lemma on a coefficient that is a polynomial.

    Returns:
        "gradient": ∂c/∂g_1 for K = d = 2, a vector; "stein": E[c ε_1] for c = M_12, S_11 g_2 + S_12 g_1.

    Raises:
        DerivationError: if either side differs.

    Example:
        >>> derive()["stein"][0]
        a*s11 + b*s12
    """
    a, b, x, y = sympy.symbols("a b x y", real=True)
    one, two = sympy.Matrix([b, x]), sympy.Matrix([a, y])
    M11, M12, M22 = sympy.symbols("M11 M12 M22")
    c = M11**2 * M12 + M12**3 / M22
    at = {M11: one.dot(one), M12: one.dot(two), M22: two.dot(two)}
    gradient = 2 * c.diff(M11) * one + c.diff(M12) * two
    direct = sympy.Matrix([c.subs(at).diff(b), c.subs(at).diff(x)])
    require((direct - gradient.subs(at)).applyfunc(sympy.simplify) == sympy.zeros(2, 1), "T13, chain rule")
    s11, s12 = sympy.symbols("s11 s12", real=True)
    # E[M̃_12 ε_1] = E[(g_1ᵀε_2 + ε_1ᵀg_2)ε_1], third moments vanish; Stein: S_11 E∂_1 + S_12 E∂_2 of M_12.
    moments = sympy.Matrix([s12 * one[k] + s11 * two[k] for k in range(2)])
    stein = s11 * two + s12 * one
    require(moments - stein == sympy.zeros(2, 1), "T13, Stein's lemma on M_12")
    return {"gradient": gradient, "stein": stein}


def leading_remainder(
    rule: Rule, gradients_gramian: ArrayLike, traces: ArrayLike, *, step: float = 1e-5
) -> tuple[Array, Array]:
    """lim d·R as coefficients of the g_k, (K,), and c(T + GGᵀ), (K,): Stein's formula at the expected Gramian.

    Args:
        rule: Gramians to coefficients.
        gradients_gramian, traces: GGᵀ and T.
        step: of the central differences, relative to the largest entry.

    Example:
        >>> lead, c = leading_remainder(rule([1.0, 1.0]), np.eye(2), np.eye(2))
        >>> bool(np.isclose(lead[0], lead[1])), c.round(2).tolist()
        (True, [1.5, 1.5])
    """
    T = np.asarray(traces, np.float64)
    mean = np.asarray(gradients_gramian, np.float64) + T
    tasks, h = len(T), step * np.abs(mean).max()
    lead = np.zeros(tasks)
    for j in range(tasks):
        for k in range(tasks):
            moved = np.zeros((tasks, tasks))
            moved[j, k] += h
            moved[k, j] += h  # on the diagonal 2h: the factor 1 + δ_jk
            ahead, behind = (rule(torch.from_numpy(mean + s * moved)).numpy() for s in (1.0, -1.0))
            lead[k] += T[:, j] @ (ahead - behind) / (2 * h)
    return lead, rule(torch.from_numpy(mean)).numpy()


def predict_rest(
    center: str, deviations: tuple[float, float], learning_rate: float, *, samples: int = 10_000, seed: int = 0
) -> float:
    """p_2 of the pair ½‖θ‖², ½‖θ − 1‖² in 50 dimensions at ω = (1, 4); 0 is the first minimizer, 1 the second.

    Args:
        center: of CAME-Grad, "mean" or "weighted".
        deviations: standard deviation of one component of either task's noise.
        learning_rate: of training; 0 for the limit.
        samples, seed: of the draws.

    Example:
        >>> round(predict_rest("mean", (0.5, 0.5), 0.02), 2)
        0.61
    """
    r = rule(WEIGHTS, center="weighted" if center == "weighted" else "mean")
    S = np.diag(np.square(deviations))
    return float(rest_weights(r, pair_of_centres(), S, learning_rate=learning_rate, samples=samples, seed=seed)[1])


def pair_of_centres() -> Array:
    """Minimizers 0 and (1, …, 1) of the pair, (2, 50)."""
    return np.stack([np.zeros(DIMENSION), np.ones(DIMENSION)])


def towards(centres: ArrayLike) -> Callable[[torch.Tensor], torch.Tensor]:
    """Gradients θ − c_k of the tasks ½‖θ − c_k‖²: (n, d) to (n, K, d)."""
    c = torch.as_tensor(np.asarray(centres, np.float64))
    return lambda theta: theta[:, None] - c


def log_cosh_gradients(theta: torch.Tensor) -> torch.Tensor:
    """Gradients of Σ_a log cosh(2θ_a)/2 and Σ_a log cosh(2θ_a − 2)/2, (n, d) to (n, 2, d)."""
    return torch.stack([torch.tanh(2 * theta), torch.tanh(2 * theta - 2)], 1)


def measure_rest(
    center: str,
    deviations: tuple[float, float],
    learning_rate: float,
    *,
    steps: int = 400,
    paths: int = 64,
    seed: int = 0,
    law: Law = gaussian,
    momentum: float = 0.0,
) -> tuple[float, float]:
    """The same by noisy training from the prediction on, with its standard error over the paths.

    Args:
        center, deviations, learning_rate: as in :func:`predict_rest`.
        steps, paths, seed, law, momentum: of training.

    Example:
        >>> place, error = measure_rest("mean", (0.5, 0.5), 0.02, steps=200, paths=8)
        >>> abs(place - 0.61) < 0.02
        True
    """
    r = rule(WEIGHTS, center="weighted" if center == "weighted" else "mean")
    start = np.full(DIMENSION, 0.6 if deviations[0] >= deviations[1] else 0.35)
    if deviations[0] < 0.05:
        start = np.full(DIMENSION, 0.51 if center == "mean" else 0.799)
    ends = train(towards(pair_of_centres()), r, np.diag(np.square(deviations)), start, learning_rate, steps,
                 momentum=momentum, paths=paths, seed=seed, law=law).mean(1)  # fmt: skip
    return float(ends.mean()), float(ends.std(ddof=1) / len(ends) ** 0.5)


def direct_update(
    rule: Rule, dimension: int, samples: int, seed: int, *, independent: bool = False
) -> tuple[Array, Array]:
    """E F of the triple by noise in all d dimensions, in the coordinates of L, (K,), with standard errors.

    Args:
        rule: Gramians to coefficients.
        dimension, samples, seed: d ≥ 3, how many, and the seed.
        independent: take the coefficients from a micro-batch of their own.
    """
    rng = np.random.default_rng(seed)
    L, C = factor(TRIPLE[0]), factor(TRACES / dimension)
    G = np.zeros((3, dimension))
    G[:, :3] = L

    def seen() -> Array:
        return G + C @ rng.normal(size=(samples, 3, dimension))

    gradients = seen()
    judged = seen() if independent else gradients
    c = rule(torch.from_numpy(judged @ judged.transpose(0, 2, 1))).numpy()
    update = np.einsum("nk,nka->na", c, gradients[:, :, :3])
    return update.mean(0), update.std(0) / samples**0.5


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Exact draws against full noise, the rate in d, two predictions of c̄, and resting points by two routes; k = 5."""
    derive()
    triple = rule(TRIPLE[1])
    exact = expectation(triple, TRIPLE[0], TRACES / 20, 20, samples=paths, seed=seed)
    weighted_sum = exact.coefficients @ exact.exact
    full = direct_update(triple, 20, 10 * paths, seed + 1)
    apart = direct_update(triple, 20, 10 * paths, seed + 2, independent=True)
    scale = float(np.linalg.norm(exact.drift))

    slope, error = remainder_rate(triple, samples=paths, seed=seed)
    far = expectation(triple, TRIPLE[0], TRACES / FAR, FAR, samples=paths, seed=seed).relative_remainder * FAR
    lead, at_mean = leading_remainder(triple, TRIPLE[0], TRACES)
    L = factor(TRIPLE[0])
    constant = float(np.linalg.norm(lead @ L) / np.linalg.norm(at_mean @ L))
    plain, corrected = share_errors(samples=paths // 2, seed=seed)
    rows = [
        _vector("T13.a", "E F by exact K×K draws of the noisy gradients", exact.drift, exact.drift_error, *full, scale,
                f"{10 * paths} noises in d = 20, K = 3, correlated"),
        _vector("T13.b", "the same as Σc̄_ig_i, without the remainder", weighted_sum, exact.drift_error, *full, scale,
                f"{10 * paths} noises in d = 20, K = 3", control=True),
        _vector("T13.c", "coefficients of another micro-batch: E F = Σc̄_ig_i exactly", weighted_sum, exact.drift_error,
                *apart, scale, f"{10 * paths} noises in d = 20, K = 3"),
        Check("T13.d", "‖E F − Σc̄_ig_i‖/‖E F‖ ∝ 1/d: slope", -1.0, slope, abs(slope + 1), max(3 * error, 0.02),
              "absolute", f"log–log over d = 20 … 2,000, slope ± {error:.3f}", standard_error=error),
        Check("T13.e", "its constant by Stein's formula at T + GGᵀ", constant, far, abs(far / constant - 1), 0.03,
              "relative", "exact draws at d = 200,000"),
        Check("T13.f", "share of c̄ to second order in Cov(M̃): largest error", 0.0, corrected, corrected, 1e-3,
              "absolute", "exact draws, d = 50, 12 cases of noise, angle and centre, absolute share", scale=0.5),
        Check("T13.g", "share of c(T + GGᵀ) as good as that", 0.0, plain, plain, 1e-3, "absolute",
              "the same 12 cases", control=True, scale=0.5),
    ]  # fmt: skip
    return rows + _rest_rows(seed, paths)


def remainder_rate(rule: Rule, *, samples: int, seed: int) -> tuple[float, float]:
    """Slope of log ‖R‖/‖E F‖ in log d, with its standard error.

    Args:
        rule: Gramians to coefficients, K = 3.
        samples, seed: of the draws.

    Example:
        >>> slope, error = remainder_rate(rule([1.0, 4.0, 0.5]), samples=1_000, seed=0)
        >>> round(slope, 1)
        -1.0
    """
    sizes = np.array([
        expectation(rule, TRIPLE[0], TRACES / d, d, samples=samples, seed=seed).relative_remainder for d in DIMENSIONS
    ])  # fmt: skip
    line = linregress(np.log(DIMENSIONS), np.log(sizes))
    return float(line.slope), float(line.stderr)


def share_errors(*, samples: int, seed: int) -> tuple[float, float]:
    """Largest error in c̄_2/Σc̄ of c(T + GGᵀ), and of the second order, over noise, angle and centre at d = 50.

    Args:
        samples, seed: of the draws that are right.
    """
    plain = corrected = 0.0
    for center in ("mean", "weighted"):
        r = rule(WEIGHTS, center="weighted" if center == "weighted" else "mean")
        for deviations in ((0.5, 0.5), (3.0, 3.0), (0.6, 3.0)):
            for cosine in (0.5, -0.5):
                M, S = 12.5 * np.array([[1, cosine], [cosine, 1]]), np.diag(np.square(deviations))
                exact = expectation(r, M, S, DIMENSION, samples=samples, seed=seed).shares[1]
                first, second = (f(r, M, S, DIMENSION) for f in (plug_in, second_order))
                plain = max(plain, abs(first[1] / first.sum() - exact))
                corrected = max(corrected, abs(second[1] / second.sum() - exact))
    return float(plain), float(corrected)


def check_full(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Every resting point of the table, with more paths."""
    runs = max(paths // 150, 8)
    return [
        _rest(f"T13.full-{center}-{level}", f"rest, {center} centre, noise {LEVELS[level][0]}: p = ĉ/Σĉ", *found,
              f"training at η = {LEVELS[level][1]}, d = {DIMENSION}, {runs} paths")
        for center in ("mean", "weighted")
        for level, found in enumerate(_levels(center, seed, paths, runs))
    ]  # fmt: skip


def _levels(center: str, seed: int, paths: int, runs: int) -> list[tuple[float, float, float]]:
    """Predicted and measured resting point and its standard error, for each of LEVELS."""
    return [
        (
            predict_rest(center, deviations, eta, samples=paths // 4, seed=seed),
            *measure_rest(center, deviations, eta, paths=runs, seed=seed + level),
        )
        for level, (deviations, eta) in enumerate(LEVELS)
    ]


def _rest_rows(seed: int, paths: int) -> list[Check]:
    runs = max(paths // 150, 8)
    found, rows = {}, []
    for center, letter in (("mean", "h"), ("weighted", "i")):
        found[center] = _levels(center, seed, paths, runs)
        worst = max(found[center], key=lambda r: abs(r[0] - r[1]) / _allowing(r[2]))
        rows.append(_rest(f"T13.{letter}", f"rest at five levels of noise, {center} centre: p = ĉ/Σĉ", *worst,
                          f"training, d = {DIMENSION}, {runs} paths; the worst level"))  # fmt: skip
    _, measured, error = found["mean"][4]
    limit = predict_rest("mean", LEVELS[4][0], 0.0, samples=paths // 4, seed=seed)
    rows.append(_rest("T13.j", "the same without the fluctuation of θ, noise (0.6, 3)", limit, measured, error,
                      "training at η = 0.02", control=True))  # fmt: skip
    _, measured, error = found["mean"][2]
    rows.append(_rest("T13.k", "rest at the task weights, 0.8, noise (0.5, 0.5)", 0.8, measured, error, "training",
                      control=True))  # fmt: skip
    heavy, _ = measure_rest("mean", (0.5, 0.5), 0.02, paths=runs, seed=seed + 9, law=heavy_tailed)
    gauss = found["mean"][2][0]
    rows.append(Check("T13.l", "Student noise of kurtosis 9 rests near where Gaussian noise does", gauss, heavy,
                      abs(heavy - gauss), 0.01, "absolute", f"training, d = {DIMENSION}, {runs} paths"))  # fmt: skip

    four = np.random.default_rng(3).normal(size=(4, DIMENSION))
    S, r4 = np.diag([0.25, 1.0, 0.09, 0.5]), rule([1.0, 4.0, 2.0, 0.5])
    p = rest_weights(r4, four, S, learning_rate=0.02, samples=paths // 4, seed=seed)
    ends = train(towards(four), r4, S, p @ four, 0.02, 400, paths=runs, seed=seed) @ np.linalg.pinv(four)
    mean, error4 = ends.mean(0), ends.std(0, ddof=1) / len(ends) ** 0.5
    worst4 = int((np.abs(mean - p) / _allowing(error4)).argmax())
    rows.append(_rest("T13.m", "K = 4: p = ĉ/Σĉ, the worst task", float(p[worst4]), float(mean[worst4]),
                      float(error4[worst4]), f"training, d = {DIMENSION}, {runs} paths"))  # fmt: skip

    r, S = rule(WEIGHTS), np.diag([0.25, 0.25])
    along = np.sqrt(DIMENSION)
    target = rest_on_line(r, lambda p: [along * np.tanh(2 * p), along * np.tanh(2 * p - 2)], S, DIMENSION,
                          samples=paths // 4, seed=seed)  # fmt: skip
    ends = train(log_cosh_gradients, r, S, np.full(DIMENSION, target), 1e-3, 1500, paths=runs, seed=seed).mean(1)
    curved, curved_error = float(ends.mean()), float(ends.std(ddof=1) / len(ends) ** 0.5)
    rows.append(Check("T13.n", "log-cosh tasks: Σĉ_ig_i = 0 as η → 0", target, curved, abs(curved - target), 3e-3,
                      "absolute", "training at η = 0.001, d = 50", standard_error=curved_error))  # fmt: skip
    moved = rest_weights(r, pair_of_centres(), S, learning_rate=0.002, momentum=0.9, samples=paths // 4, seed=seed)
    ball = measure_rest("mean", (0.5, 0.5), 0.002, paths=runs, seed=seed + 5, momentum=0.9)
    rows.append(_rest("T13.o", "heavy ball, β = 0.9: the same equation", float(moved[1]), *ball,
                      f"training at η = 0.002, d = {DIMENSION}"))  # fmt: skip
    return rows


PREDICTION = 1e-4
"""Standard error of a predicted resting point from 2,500 draws."""


def _allowing(error: Array | float) -> Array | float:
    """Standard error of measurement and prediction together."""
    return np.hypot(error, PREDICTION)


def _rest(
    name: str, claim: str, predicted: float, measured: float, error: float, route: str, *, control: bool = False
) -> Check:
    both = float(_allowing(error))
    return Check(name, claim, predicted, measured, abs(measured - predicted) / both, STANDARD_ERRORS, "SE", route,
                 control, standard_error=both)  # fmt: skip


def _vector(
    name: str, claim: str, predicted: Array, own: Array, measured: Array, error: Array, scale: float, route: str,
    *, control: bool = False,
) -> Check:  # fmt: skip
    both = np.hypot(own, error)
    z = np.abs(measured - predicted) / both
    worst = int(z.argmax())
    return Check(name, claim, float(predicted[worst]), float(measured[worst]), float(z[worst]), STANDARD_ERRORS, "SE",
                 route, control, standard_error=float(both.max()), scale=scale)  # fmt: skip
