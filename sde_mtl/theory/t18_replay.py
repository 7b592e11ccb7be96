r"""T18, replay (new): linear scalarization with a recorded schedule c̄(t) does what CAME-Grad does, in one backward.

Record c̄(t), the mean over some runs of CAME-Grad's coefficients at step t, and train *other* runs with

.. math:: θ_{t+1} = θ_t - η\sum_i \bar c_i(t)\,\tilde g_i(θ_t)
   = θ_t - η\,∇\Bigl[\sum_i \bar c_i(t)\,\tilde L_i\Bigr](θ_t),

one backward pass of one weighted loss where CAME-Grad needs K. With losses linear in θ to first order along the path
the two mean paths part by what T13 leaves out: for tasks ½‖θ − c_k‖² the difference D = E θ − E θ_replay obeys

.. math:: D_{t+1} = (1 - ηh_t)D_t - ηR_t, \qquad h = \sum_i \bar c_i, \quad R = E F - \sum_i \bar c_i g_i = O(1/d),

so that at rest D = −R/h = p − c̄(p)/Σc̄ (in the c_k's coordinates). Coefficients that react to the path's own
fluctuation are part of c̄ and R: the noise of T13 is S + q·11ᵀ. The replay's spread is exactly that of a linear
recursion,

.. math:: v_{t+1} = (1 - ηh_t)²v_t + η²\,\bar c(t)^⊤S\,\bar c(t),

and CAME-Grad's differs from it by O(1/d): tr Cov F stands in place of c̄ᵀTc̄ (T14), about 1 % less here, and its
coefficients answer to θ's own fluctuation, which lowers the restoring force by 2 % (:func:`predict_variance`). So the
control experiment for CAME-Grad is not linear scalarization with equal weights, nor with ω, but with c̄(t): if that
does as well, conflict played no part.

What it does not say: where runs differ so much that the mean of their coefficients is none of theirs (separate
basins, a common random schedule); Adam, whose preconditioner sees the same combination in both (T19).
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import sympy
import torch
from numpy.typing import ArrayLike, NDArray

from optimizers import gramian
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.examples import WEIGHTS
from sde_mtl.theory.hidden_weights import Rule, expectation, fluctuation, noisy_gradients, plug_in, rest_weights, rule

Array = NDArray[np.float64]
STANDARD_ERRORS = 5.0
DIMENSION, STEPS, LEARNING_RATE = 50, 160, 0.02
COVARIANCE = np.diag([0.36, 9.0])
"""Of one component of the noise: the two tasks differ, so that c̄ is far from ω and from equal weights."""
START = 4.0
"""Of the coordinate along the line through both minimizers, 0 and 1; half of the coordinates start at −4."""


def derive() -> sympy.Expr:
    """The gap at which D comes to rest, in coordinates of the c_k.

    Raises:
        DerivationError: if the fixed point of D's recursion is not p − c̄_2/Σc̄.

    Example:
        >>> derive()
        -c2/(c1 + c2) + p
    """
    p, c1, c2, eta, D = sympy.symbols("p c1 c2 eta D")
    h = c1 + c2
    remainder = -(c1 * p + c2 * (p - 1))  # E F = 0 at rest, and E F = Σc̄_ig_i + R
    fixed = sympy.solve(sympy.Eq(D, (1 - eta * h) * D - eta * remainder), D)[0]
    gap = p - c2 / h
    require(sympy.simplify(fixed - gap) == 0, "T18, the gap at rest")
    return gap


@dataclass(frozen=True)
class Runs:
    """Many runs of one way to train.

    Attributes:
        positions: (T + 1, n) mean coordinate of each run, the place on the line through the minimizers.
        spread: (T + 1,) variance over the runs of one coordinate, averaged over the coordinates.
        schedule: (T, K) mean coefficients.
    """

    positions: Array
    spread: Array
    schedule: Array


def train(how: Rule | Array, *, paths: int, seed: int, steps: int = STEPS) -> Runs:
    """Train ½‖θ‖² and ½‖θ − 1‖² in 50 dimensions with an aggregator, or with a schedule of weights.

    Args:
        how: Gramians to coefficients, or (T, K) weights.
        paths: runs.
        seed: of their noise.
        steps: T.

    Example:
        >>> runs = train(np.full((50, 2), 0.5), paths=4, seed=0, steps=50)
        >>> runs.positions.shape, runs.schedule[0].tolist()
        ((51, 4), [0.5, 0.5])
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.where(torch.arange(DIMENSION) % 2 == 0, 1.0, -1.0).double()
    theta = (START * signs).repeat(paths, 1)
    deviation = torch.from_numpy(np.sqrt(np.diag(COVARIANCE)))[:, None]
    positions, spread, schedule = [theta.mean(1).numpy()], [0.0], []
    for t in range(steps):
        noise = deviation * torch.randn(paths, 2, DIMENSION, generator=generator, dtype=torch.float64)
        seen = torch.stack([theta, theta - 1], 1) + noise
        c = torch.from_numpy(how[t]).expand(paths, 2) if isinstance(how, np.ndarray) else how(gramian(seen))
        theta = theta - LEARNING_RATE * torch.einsum("nk,nkd->nd", c, seen)
        positions.append(theta.mean(1).numpy())
        spread.append(float(theta.var(0).mean()))
        schedule.append(c.mean(0).numpy())
    return Runs(np.array(positions), np.array(spread), np.array(schedule))


def predict_spread(schedule: ArrayLike) -> Array:
    """Variance of one coordinate of the replay after each step, (T + 1,), exactly.

    Args:
        schedule: (T, K) weights.

    Example:
        >>> round(float(predict_spread([[0.5, 0.5]])[1]), 6)  # η²(0.36 + 9)/4
        0.000936
    """
    v = [0.0]
    for c in np.asarray(schedule, np.float64):
        v.append(float((1 - LEARNING_RATE * c.sum()) ** 2 * v[-1] + LEARNING_RATE**2 * c @ COVARIANCE @ c))
    return np.array(v)


def predict_gap(*, samples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """At rest: D = p − c̄_2(p)/Σc̄ of the pair, and p itself.

    Args:
        samples, seed: of the draws.

    Example:
        >>> gap, place = predict_gap(samples=2_000)
        >>> 0.001 < gap < 0.02, 0.25 < place < 0.35
        (True, True)
    """
    r, p = rule(WEIGHTS), _place(samples, seed)
    M = _gramian_at(p)
    q = fluctuation(lambda S: plug_in(r, M, S, DIMENSION), COVARIANCE, LEARNING_RATE)
    found = expectation(r, M, COVARIANCE + q, DIMENSION, samples=samples, seed=seed)
    return p - float(found.shares[1]), p


def predict_variance(*, samples: int = 10_000, seed: int = 0) -> float:
    r"""Stationary variance q of one coordinate under CAME-Grad, by exact draws and without linearizing.

    tr Cov θ does not change where 2E[Fᵀξ] = η tr Cov F, with ξ = θ − Eθ taken as isotropic and Gaussian. ξ is part of
    every task's noise N_j, of covariance S + q·11ᵀ together, and by regression on them

    .. math:: E[F^⊤ξ] = \sum_j w_j\,E[F^⊤N_j], \qquad w = q\,(S + q11^⊤)^{-1}1, \qquad
       E[F^⊤N_j] = E[(\tilde Mc)_j] - g_j^⊤E F .

    Args:
        samples, seed: of the draws.

    Example:
        >>> 0.15 < predict_variance(samples=2_000) < 0.25
        True
    """
    r = rule(WEIGHTS)
    M = _gramian_at(_place(samples, seed))

    def unbalanced(q: float) -> float:
        drawn = noisy_gradients(M, COVARIANCE + q, DIMENSION, samples, seed)
        c, seen = r(drawn.gramians).numpy(), drawn.gramians.numpy()
        drift = expectation(r, M, COVARIANCE + q, DIMENSION, samples=samples, seed=seed).drift
        products = np.einsum("nij,nj->ni", seen, c)
        with_noise = products.mean(0) - drawn.exact @ drift
        trace = np.einsum("ni,ni->n", c, products).mean() - drift @ drift
        share = q * np.linalg.solve(COVARIANCE + q, np.ones(2))
        return float(2 * share @ with_noise - LEARNING_RATE * trace)

    return float(scipy.optimize.brentq(unbalanced, 0.01, 2.0, xtol=1e-4))


def _place(samples: int, seed: int) -> float:
    """Where CAME-Grad rests on the line."""
    centres = np.stack([np.zeros(DIMENSION), np.ones(DIMENSION)])
    return float(
        rest_weights(rule(WEIGHTS), centres, COVARIANCE, learning_rate=LEARNING_RATE, samples=samples, seed=seed)[1]
    )


def _gramian_at(place: float) -> Array:
    return DIMENSION * np.outer([place, place - 1], [place, place - 1])


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """CAME-Grad, its replay on the same noise with the schedule of other runs, and schedules that are not its own."""
    derive()
    runs = max(paths // 20, 20)
    r = rule(WEIGHTS)
    recorded = train(r, paths=runs, seed=seed + 1).schedule
    original = train(r, paths=runs, seed=seed)
    replay = train(recorded, paths=runs, seed=seed)
    size = recorded.sum(1, keepdims=True)
    as_weighted = train(size * np.array(WEIGHTS) / sum(WEIGHTS), paths=runs, seed=seed)
    equal = train(size / 2 * np.ones(2), paths=runs, seed=seed)
    fixed = train(np.tile(recorded.mean(0), (STEPS, 1)), paths=runs, seed=seed)

    def apart(other: Runs) -> float:
        """Largest distance of the mean paths."""
        return float(np.abs((original.positions - other.positions).mean(1)).max())

    last = slice(STEPS - 20, None)
    gap, place = predict_gap(samples=paths // 2, seed=seed)
    excess = predict_variance(samples=paths // 2, seed=seed) / float(predict_spread(recorded)[-1])
    differences = (original.positions - replay.positions)[last].mean(0)
    measured, error = float(differences.mean()), float(differences.std(ddof=1) / runs**0.5)
    error = float(np.hypot(error, 2e-4))  # the second from the draws of the prediction
    predicted = predict_spread(recorded)[-1]
    components = runs * DIMENSION
    spread_error = float(predicted * (2 / components) ** 0.5)
    later = expectation(r, *_at_start(), DIMENSION, samples=paths // 2, seed=seed).coefficients
    ratio = float(original.spread[last].mean() / replay.spread[last].mean())
    farthest = [apart(x) for x in (replay, as_weighted, equal, fixed)]
    return [
        Check("T18.a", "mean paths of CAME-Grad and its replay: largest distance", 0.0, farthest[0], farthest[0], 0.015,
              "absolute", f"{runs} runs, schedule of {runs} others, d = 50, K = 2, signal-to-noise ratio 3 … 0.01",
              scale=1.0),
        Check("T18.b", "their distance at rest, p − c̄_2/Σc̄", gap, measured, abs(measured - gap) / error,
              STANDARD_ERRORS, "SE", f"mean of the last 20 steps, {runs} runs on the same noise", standard_error=error,
              scale=place),
        Check("T18.c", "no distance at rest", 0.0, measured, measured / error, STANDARD_ERRORS, "SE",
              "the same runs", control=True, standard_error=error, scale=place),
        Check("T18.d", "variance of the replay by its linear recursion", float(predicted), float(replay.spread[-1]),
              abs(float(replay.spread[-1]) - float(predicted)) / spread_error, 3.0, "SE",
              f"{runs} runs of 50 coordinates", standard_error=spread_error),
        Check("T18.e", "variance of CAME-Grad over that of the replay", excess, ratio,
              abs(ratio / excess - 1), 0.02, "relative", f"last 20 steps, {runs} runs on the same noise"),
        Check("T18.f", "coefficients at the start by exact draws", float(later[1]), float(recorded[0, 1]),
              abs(float(recorded[0, 1] / later[1]) - 1), 0.01, "relative", f"{runs} runs"),
        Check("T18.g", "replay with the task weights ω, same total", 0.0, farthest[1], farthest[1], 0.015, "absolute",
              f"{runs} runs", control=True, scale=1.0),
        Check("T18.h", "replay with equal weights, same total", 0.0, farthest[2], farthest[2], 0.015, "absolute",
              f"{runs} runs", control=True, scale=1.0),
        Check("T18.i", "replay with the fixed mean of c̄(t)", 0.0, farthest[3], farthest[3], 0.015, "absolute",
              f"{runs} runs", control=True, scale=1.0),
    ]  # fmt: skip


def _at_start() -> tuple[Array, Array]:
    """GGᵀ and S where training starts."""
    theta = START * np.where(np.arange(DIMENSION) % 2 == 0, 1.0, -1.0)
    G = np.stack([theta, theta - 1])
    return G @ G.T, COVARIANCE
