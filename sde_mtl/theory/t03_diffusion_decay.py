r"""T3, diffusion decay: how cross-task noise correlation shrinks the diffusion of linear scalarization.

.. math:: Σ_{LS} = \sum_{ij} ω_iω_jΣ_{ij}, \qquad
          \frac{\mathrm{tr}\,Σ_{LS}}{\sum_i ω_i²\,\mathrm{tr}\,Σ_{ii}}
          = 1 + \frac{2\sum_{i<j} ω_iω_j\,\mathrm{tr}\,Σ_{ij}}{\sum_i ω_i²\,\mathrm{tr}\,Σ_{ii}}.

The ratio is below 1 iff the weighted cross-covariances sum to a negative number, equals 1 iff they sum to
0 (independent noise in particular), and 0 iff Σω_iε_i = 0 almost surely.

With quadratic losses and additive noise the SDE dΘ = −g_J dt + √(ηΣ_LS) dW is an Ornstein–Uhlenbeck process
around the minimizer θ* of the weighted loss, H = Σω_iA_i:

.. math:: E Θ_t = θ^* + e^{-Ht}(θ_0-θ^*), \quad C_t = C_∞ - e^{-Ht}C_∞e^{-Ht}, \quad HC_∞ + C_∞H = ηΣ_{LS}.

The training loop itself has :math:`HC + CH - ηHCH = ηΣ_{LS}`, so that its stationary covariance exceeds the
SDE's: C = ηX + η²Y + O(η³) with HX + XH = Σ_LS and HY + YH = HXH.

(arXiv:2605.22635, section 3; theory T3.) What it does not say: that less diffusion is worse, nor that
CAME-Grad restores it (theory T4); real noise is neither additive nor Gaussian; and the laws are those of plain SGD,
without momentum or Adam.
"""

from dataclasses import dataclass

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm, solve_continuous_lyapunov, solve_discrete_lyapunov

from optimizers import linear
from sde_mtl.problems import AdditiveNoise, Quadratic
from sde_mtl.simulation import Ensemble, LinearSDE, Recursion, simulate
from sde_mtl.theory.check import Check, in_standard_errors, require

Array = NDArray[np.float64]
STANDARD_ERRORS = 5.0


def derive() -> dict[str, sympy.Expr]:
    """Trace ratio for K = 3, d = 2, and the one-dimensional laws of the SDE and the recursion.

    Returns:
        "ratio" (the trace ratio minus 1, for K = 2), "ou" and "discrete" (stationary variances),
        "excess" (leading coefficient of discrete/ou − 1 in η); for commuting H and Σ_LS in two dimensions,
        H = R diag(h0, h1)Rᵀ and Σ_LS = R diag(v0, v1)Rᵀ with R the rotation by φ: "mean" (e^{−Ht}), "covariance" (C_t)
        and "recursion" (the stationary covariance of the loop), 2×2 matrices to print or lambdify.

    Raises:
        DerivationError: if a claim does not follow.

    Example:
        >>> derive()["excess"]
        h/2
    """
    w = sympy.symbols("w:3", positive=True)
    sigma = sympy.Matrix(6, 6, lambda i, j: sympy.Symbol(f"s{min(i, j)}{max(i, j)}", real=True))

    def block(i: int, j: int) -> sympy.Expr:
        return sigma[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].trace()

    mix = sympy.Matrix.hstack(*(w_i * sympy.eye(2) for w_i in w))
    total = (mix * sigma * mix.T).trace()
    own = sum(w[i] ** 2 * block(i, i) for i in range(3))
    cross = 2 * sum(w[i] * w[j] * block(i, j) for i in range(3) for j in range(i + 1, 3))
    require(sympy.expand(total - own - cross) == 0, "T3, trace of Σ_LS")

    h, eta, v, t, s = sympy.symbols("h eta v t s", positive=True)
    variance = sympy.integrate(sympy.exp(-2 * h * s) * eta * v, (s, 0, t))
    ou = sympy.limit(variance, t, sympy.oo)
    require(sympy.simplify(2 * h * ou - eta * v) == 0, "T3, Lyapunov equation in one dimension")
    require(sympy.simplify(variance - ou * (1 - sympy.exp(-2 * h * t))) == 0, "T3, C_t in one dimension")
    k = sympy.Symbol("k", positive=True)
    discrete = sympy.solve(k - (1 - eta * h) ** 2 * k - eta**2 * v, k)[0]
    require(sympy.simplify(2 * h * discrete - eta * h**2 * discrete - eta * v) == 0, "T3, discrete equation")
    excess = sympy.series(discrete / ou - 1, eta, 0, 2).removeO().coeff(eta, 1)

    phi = sympy.Symbol("phi", real=True)
    rates, variances = sympy.symbols("h0:2", positive=True), sympy.symbols("v0:2", positive=True)
    c, s_ = sympy.symbols("c s", real=True)  # cos φ and sin φ: polynomials reduce faster than trigonometry
    R = sympy.Matrix([[c, -s_], [s_, c]])

    def rotated(first: sympy.Expr, second: sympy.Expr) -> sympy.Matrix:
        return R * sympy.diag(first, second) * R.T

    H, diffusion = rotated(*rates), rotated(*variances)
    decay = rotated(*(sympy.exp(-r * t) for r in rates))
    pairs = list(zip(rates, variances, strict=True))
    covariance = rotated(*(eta * u * (1 - sympy.exp(-2 * r * t)) / (2 * r) for r, u in pairs))
    recursion = rotated(*(eta * u / (r * (2 - eta * r)) for r, u in pairs))
    for name, residual in (
        ("e^{−Ht}", sympy.diff(decay, t) + H * decay),
        ("C_t", sympy.diff(covariance, t) + H * covariance + covariance * H - eta * diffusion),
        ("stationary recursion", H * recursion + recursion * H - eta * H * recursion * H - eta * diffusion),
    ):
        numerators = [sympy.expand(sympy.together(entry).as_numer_denom()[0]) for entry in residual]
        vanish = [sympy.expand(sympy.rem(entry, c**2 + s_**2 - 1, s_)) == 0 for entry in numerators]
        require(all(vanish), f"T3, {name} for commuting H and Σ")
    require(covariance.subs(t, 0) == sympy.zeros(2, 2), "T3, C_0 = 0")
    angle = {c: sympy.cos(phi), s_: sympy.sin(phi)}
    return {
        "mean": decay.subs(angle),
        "covariance": covariance.subs(angle),
        "recursion": recursion.subs(angle),
        "ratio": 2 * w[0] * w[1] * block(0, 1) / (w[0] ** 2 * block(0, 0) + w[1] ** 2 * block(1, 1)),
        "ou": ou,
        "discrete": sympy.simplify(discrete),
        "excess": sympy.simplify(excess),
    }


def trace_ratio(traces: ArrayLike, task_weights: ArrayLike) -> Array:
    """tr Σ_LS / Σω_i² tr Σ_ii from the (..., K, K) traces tr Σ_ij.

    Example:
        >>> float(trace_ratio([[1.0, -0.5], [-0.5, 1.0]], [1.0, 1.0]))
        0.5
    """
    T, w = np.asarray(traces, np.float64), np.asarray(task_weights, np.float64)
    own = np.einsum("i,...ii->...", w**2, T)
    return np.asarray(np.einsum("i,...ij,j->...", w, T, w) / own)


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """Laws of the SDE of linear scalarization on quadratics, and of the recursion it stands for.

    Args:
        hessian: (d, d) symmetric positive definite H.
        minimizer: (d,) θ*.
        diffusion: (d, d) Σ_LS.
        learning_rate: η.

    Example:
        >>> ou = OrnsteinUhlenbeck(np.eye(1) * 2, np.zeros(1), np.eye(1), 0.1)
        >>> round(float(ou.stationary()[0, 0]), 6), round(float(ou.discrete_stationary()[0, 0]), 6)
        (0.025, 0.027778)
    """

    hessian: Array
    minimizer: Array
    diffusion: Array
    learning_rate: float

    @classmethod
    def of(
        cls, problem: Quadratic, noise: AdditiveNoise, task_weights: ArrayLike, learning_rate: float
    ) -> "OrnsteinUhlenbeck":
        """The process of a problem, its noise and weights."""
        return cls(
            problem.hessian(task_weights).numpy(),
            problem.minimizer(task_weights).numpy(),
            noise.joint_covariance(task_weights).numpy(),
            learning_rate,
        )

    def mean(self, time: float, start: ArrayLike) -> Array:
        """E Θ_t, (d,)."""
        return self.minimizer + expm(-self.hessian * time) @ (np.asarray(start) - self.minimizer)

    def covariance(self, time: float) -> Array:
        """C_t from a fixed start, (d, d)."""
        decay, limit = expm(-self.hessian * time), self.stationary()
        return limit - decay @ limit @ decay.T

    def stationary(self) -> Array:
        """C_∞, the solution of HC + CH = ηΣ_LS."""
        return np.asarray(solve_continuous_lyapunov(self.hessian, self.learning_rate * self.diffusion))

    def discrete_mean(self, steps: int, start: ArrayLike) -> Array:
        """E θ_n of the recursion, θ* + (I − ηH)ⁿ(θ_0 − θ*)."""
        power = np.linalg.matrix_power(self._contraction(), steps)
        return self.minimizer + power @ (np.asarray(start) - self.minimizer)

    def discrete_covariance(self, steps: int) -> Array:
        """Cov θ_n of the recursion from a fixed start."""
        power, limit = np.linalg.matrix_power(self._contraction(), steps), self.discrete_stationary()
        return limit - power @ limit @ power.T

    def discrete_stationary(self) -> Array:
        """The solution of HC + CH − ηHCH = ηΣ_LS."""
        return np.asarray(solve_discrete_lyapunov(self._contraction(), self.learning_rate**2 * self.diffusion))

    def excess(self) -> Array:
        """Y with discrete − continuous stationary covariance = η²Y + O(η³): HY + YH = HXH."""
        X = self.stationary() / self.learning_rate
        return np.asarray(solve_continuous_lyapunov(self.hessian, self.hessian @ X @ self.hessian))

    def _contraction(self) -> Array:
        return np.eye(len(self.hessian)) - self.learning_rate * self.hessian


WEIGHTS = (1.0, 2.0)
START = (3.0, -2.0)
LEARNING_RATE = 0.08
FINER, FINEST = 64, 256
"""Euler–Maruyama steps to one of the loop: their bias, ηλ/2 over as many, is below a standard error."""
SETTLED = 30
"""Steps of the loop after which the SDE is stationary: e^{−2λt} = 2e-7."""


def example(correlation: float = -0.6) -> tuple[Quadratic, AdditiveNoise]:
    """The conflicting pair of quadratics on which T3 is checked; minimizers on either side of 0."""
    problem = Quadratic([[[1.0, 0.3], [0.3, 2.0]], [[1.5, -0.2], [-0.2, 0.6]]], [[1.0, 0.0], [-1.0, 0.5]])
    return problem, AdditiveNoise.correlated([1.0, 0.5], correlation=correlation, dimension=2)


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Transient and stationary laws against the recursion and against Euler–Maruyama; up to 32 times the paths."""
    symbols = derive()
    problem, noise = example()
    law = OrnsteinUhlenbeck.of(problem, noise, WEIGHTS, LEARNING_RATE)
    early, late, many = 10, 150, 16 * paths

    loop = Recursion(problem, noise, linear, WEIGHTS, LEARNING_RATE)
    trained = simulate(loop, START, late, paths=many, seed=seed, record=(early, late))
    finest = LinearSDE(problem, noise, WEIGHTS, LEARNING_RATE, time_step=LEARNING_RATE / FINEST)
    young = simulate(finest, START, early * FINEST, paths=4 * paths, seed=seed + 1)
    finer = LinearSDE(problem, noise, WEIGHTS, LEARNING_RATE, time_step=LEARNING_RATE / FINER)
    settled = simulate(finer, START, SETTLED * FINER, paths=8 * paths, seed=seed + 3)
    elapsed = early * LEARNING_RATE
    squares = _squares(noise, samples=2 * many, seed=seed + 2)
    ratio = float(trace_ratio(np.einsum("iaja->ij", noise.covariance.numpy()), WEIGHTS))
    independent = OrnsteinUhlenbeck.of(problem, example(0.0)[1], WEIGHTS, LEARNING_RATE)
    small = [OrnsteinUhlenbeck.of(problem, noise, WEIGHTS, eta) for eta in (1e-3, 5e-4)]
    remainders = [
        np.linalg.norm(p.discrete_stationary() - p.stationary() - p.learning_rate**2 * p.excess()) for p in small
    ]
    eta = 1e-3
    unit = OrnsteinUhlenbeck(np.eye(1), np.zeros(1), np.eye(1), eta)
    one_dimensional = float(unit.discrete_stationary()[0, 0] / unit.stationary()[0, 0] - 1)
    series = eta * symbols["excess"].subs({symbol: 1 for symbol in symbols["excess"].free_symbols})
    order = float(np.log2(remainders[0] / remainders[1]))
    scheme = f"Euler–Maruyama, dt = η/{FINEST}"
    return [
        in_standard_errors("T3.a", "tr Σ_LS / Σω²tr Σ_ii = 1 + 2Σω_iω_jtr Σ_ij / Σω²tr Σ_ii", ratio, squares.mean(),
                           squares.std() / len(squares) ** 0.5, f"{len(squares)} noise vectors, correlation −0.6"),
        _mean("T3.b", "OU mean at t = 0.8", law.mean(elapsed, START), young, 0, scheme),
        _covariance("T3.c", "OU covariance at t = 0.8", law.covariance(elapsed), young, 0, scheme),
        _covariance("T3.d", "OU stationary covariance", law.stationary(), settled, 0,
                    f"Euler–Maruyama, dt = η/{FINER}, t = {SETTLED}η"),
        _mean("T3.e", "mean of the training loop after 10 steps", law.discrete_mean(early, START), trained, 0,
              "exact recursion"),
        _covariance("T3.f", "covariance of the loop after 10 steps", law.discrete_covariance(early),
                    trained, 0, "exact recursion"),
        _covariance("T3.g", "stationary covariance of the loop", law.discrete_stationary(), trained, 1,
                    "exact recursion"),
        Check("T3.h", "loop exceeds SDE by η²Y, remainder O(η³): order", 3.0, order, abs(order - 3), 0.01,
              "absolute", "Lyapunov equations at η = 1e-3 and 5e-4"),
        Check("T3.i", "relative excess in one dimension at ηh = 0.001: ηh/2 up to O(η²)", float(series),
              one_dimensional, abs(float(series) / one_dimensional - 1), eta, "relative",
              "sympy's ηh/2 against the exact ηh/(2 − ηh)"),
        _covariance("T3.j", "loop's covariance as if the noise were independent",
                    independent.discrete_stationary(), trained, 1, "exact recursion", control=True),
        _covariance("T3.k", "loop's covariance as if it were the SDE's, HC + CH = ηΣ_LS", law.stationary(),
                    trained, 1, "exact recursion", control=True),
    ]  # fmt: skip


def _squares(noise: AdditiveNoise, *, samples: int, seed: int) -> Array:
    """‖Σω_iε_i‖² of sampled noise over what independent noise would give in the mean."""
    joint = np.einsum("k,nkd->nd", WEIGHTS, noise.sample(torch.arange(samples), 0, seed=seed).numpy())
    own = np.einsum("i,iaia->", np.square(WEIGHTS), noise.covariance.numpy())
    return np.asarray((joint**2).sum(-1) / own)


def _mean(name: str, claim: str, predicted: Array, moments: Ensemble, at: int, route: str) -> Check:
    """The worst coordinate of a mean; a deviation is measured by the coordinate's standard deviation."""
    mean, error = moments.mean[at].numpy(), moments.mean_error()[at].numpy()
    worst = int((np.abs(mean - predicted) / error).argmax())
    return in_standard_errors(name, claim, predicted[worst], mean[worst], error[worst],
                              f"{route}, {moments.paths} paths", scale=error[worst] * moments.paths**0.5)  # fmt: skip


def _covariance(
    name: str, claim: str, predicted: Array, moments: Ensemble, at: int, route: str, *, control: bool = False
) -> Check:
    """The worst entry of a covariance; a deviation is measured by the product of the two standard deviations."""
    variance, measured = np.diag(predicted), moments.covariance[at].numpy()
    size = np.sqrt(np.outer(variance, variance))
    error = np.sqrt((predicted**2 + size**2) / (moments.paths - 1))
    worst = np.unravel_index((np.abs(measured - predicted) / error).argmax(), error.shape)
    return in_standard_errors(name, claim, float(predicted[worst]), float(measured[worst]), float(error[worst]),
                              f"{route}, {moments.paths} paths", scale=float(size[worst]), control=control)  # fmt: skip
