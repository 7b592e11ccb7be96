r"""T16, rates (new): how fast CAME-Grad gets to where T6 and T7 say, and how far gradient noise keeps it away.

Let L_J = Σω_iL_i be L-smooth and bounded below, Δ = L_J(θ_0) − inf L_J, θ ← θ − ηF, c_ρ = √(1−ρ²); nothing is convex.

**Without noise.** ‖F‖ ≤ κ‖g_J‖ (T14), and g_JᵀF ≥ κa‖g_J‖² with a = c_ρ for the weighted centre (T7), a = 2ν − 1 for
ν > ½ (T6). So L_J falls by at least ηκ(a − ηκL/2)‖g_J‖² a step; with η = a/(κL), summed over T steps,

.. math:: \frac1T\sum_t ‖g_J‖² ≤ \frac{2LΔ}{a²T}.

For ν < c_ρ/(1+c_ρ), μᵀF ≥ κm‖g_J‖‖μ‖ with m = (1−ν)c_ρ − ν (T6). With L_μ the smoothness of the mean loss and Δ_μ its
gap

.. math:: \frac1T\sum_t ‖g_J‖‖μ‖ ≤ \frac{Δ_μ}{ηκmT} + \frac{ηκL_μ}{2m}\,\frac1T\sum_t ‖g_J‖².

The last term is the chatter, and it cannot be proven away: ‖F‖ ≥ κ(1−2ν)‖g_J‖, so that of two successive iterates one
is at least ηκ(1−2ν)‖g_J‖/2 from any given point.

**Stage 2 scaled by ‖μ‖**, F' = κ[(1−ν)‖μ‖û + νg_J], does not chatter, and at ν = 0 it has the rate of the first line
for the mean loss, with a = c_ρ. For ν > 0 it no longer rests at the mean's minimizer but where (1−ν)‖μ‖û = −νg_J,
hence ‖μ‖ = ‖g_J‖ν/(1−ν).

**With noise**, weighted centre, coefficients of the same batch, unbiased gradients with tr Σ_LS ≤ σ². Path by path
g̃_JᵀF ≥ κc_ρ‖g̃_J‖² and ‖F‖ ≤ κ‖g̃_J‖; with g_J = g̃_J − ε_J, Cauchy–Schwarz, and G² = E‖g̃_J‖² = ‖g_J‖² + tr Σ_LS,

.. math:: E\,g_J^⊤F ≥ κG(c_ρG - σ) ≥ \frac{κ}{2}\Bigl[c_ρ‖g_J‖² - \frac{ρ²}{c_ρ}σ²\Bigr],

which is positive as long as SNR_J > ρ²/(1−ρ²), a third at ρ = ½: noise can hold training only nearer than that. With
η ≤ c_ρ/(2κL)

.. math:: \frac1T\sum_t E‖g_J‖² ≤ \frac{4Δ}{ηκc_ρT} + \frac{2ηκL}{c_ρ}σ² + 2\frac{ρ²}{c_ρ²}σ² .

The last term is a floor, proportional to 1/B, which no learning rate removes; T13 shows that there is one. With η ∝
T^{-1/2} and ρ ∝ T^{-1/4} all three are O(T^{-1/2}): ‖g_J‖ ≤ ε after O(ε^{-4}) gradients, the rate of SGD, because
CAME-Grad then is SGD.

Beside published results, whose subject is Pareto stationarity rather than the weighted loss: Liu and Vicente
(arXiv:1907.04472) show that the multi-gradient of unbiased gradients is biased; Zhou et al. (NeurIPS 2022, CR-MOGM)
give a convex pair on which weights taken from the instantaneous gradients do not converge, and average them; Fernando
et al. (MoCo, arXiv:2210.12624) track the gradients instead and need no growing batches; Xiao, Ban and Ji (SDMGrad,
arXiv:2305.18409) draw independent samples for weights and update. The floor above is the counterpart, for CAME-Grad,
of what they remove.

What it does not say: anything for the paper's centre under noise other than T13. With coefficients of another batch E
F = Σc̄_ig_i with c̄ ≥ 0 exactly (T13), so that rest is Pareto stationary; a rate for it needs a potential that is not
known here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from torch import Tensor

from optimizers import came_grad
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.descent import Center, descend, last
from sde_mtl.theory.examples import KAPPA, WEIGHTS, example
from sde_mtl.theory.hidden_weights import expectation, rule

Array = NDArray[np.float64]
RHO, NU = 0.5, 0.2
C_RHO = (1 - RHO**2) ** 0.5
WAVES = 0.5, 2.0
"""Height and frequency of the ripples that make the losses nonconvex."""
HORIZONS = 64, 256, 1024
"""Steps T of the noisy runs."""


def derive() -> sympy.Expr:
    """The descent of one step at the best η, the noisy descent's square completed, and where it stops.

    Returns:
        The signal-to-noise ratio below which noise may hold training.

    Raises:
        DerivationError: if a step of the proof does not close.

    Example:
        >>> derive()
        rho**2/(1 - rho**2)
    """
    eta, kappa, a, L, sigma, G, g, rho = sympy.symbols("eta kappa a L sigma G g rho", positive=True)
    descent = eta * kappa * (a - eta * kappa * L / 2)
    best = sympy.solve(descent.diff(eta), eta)[0]
    require(sympy.simplify(best - a / (kappa * L)) == 0, "T16, the best learning rate")
    require(sympy.simplify(descent.subs(eta, best) - a**2 / (2 * L)) == 0, "T16, descent of one step")
    c = sympy.sqrt(1 - rho**2)
    # Gσ ≤ (cG² + σ²/c)/2, whose slack is a square.
    require(
        sympy.simplify((c * G**2 + sigma**2 / c) / 2 - G * sigma - (c * G - sigma) ** 2 / (2 * c)) == 0, "T16, AM–GM"
    )
    lower = (c * G**2 - sigma**2 / c) / 2
    claimed = (c * g**2 - rho**2 / c * sigma**2) / 2
    require(sympy.simplify(lower.subs(G, sympy.sqrt(g**2 + sigma**2)) - claimed) == 0, "T16, noisy descent")
    stop = sympy.solve(sympy.Eq(claimed, 0), g)[0] ** 2 / sigma**2
    require(sympy.simplify(stop - rho**2 / (1 - rho**2)) == 0, "T16, where it stops")
    return rho**2 / (1 - rho**2)


def predict_noisy_average(
    gap: float, learning_rate: float, smoothness: float, steps: int, variance: float, rho: float
) -> float:
    """The bound on (1/T)ΣE‖g_J‖² for the weighted centre under noise, κ = 1.5.

    Args:
        gap: Δ.
        learning_rate: η ≤ c_ρ/(2κL).
        smoothness: L.
        steps: T.
        variance: σ² ≥ tr Σ_LS.
        rho: of CAME-Grad.

    Raises:
        ValueError: for a larger learning rate.

    Example:
        >>> predict_noisy_average(1.0, 0.01, 1.0, 10_000, 0.0, 0.0)
        0.02666...
    """
    c = (1 - rho**2) ** 0.5
    if learning_rate > c / (2 * KAPPA * smoothness):
        raise ValueError(
            f"learning_rate = {learning_rate} must be at most c_ρ/(2κL) = {c / (2 * KAPPA * smoothness):.4g}"
        )
    transient = 4 * gap / (learning_rate * KAPPA * c * steps)
    return transient + 2 * learning_rate * KAPPA * smoothness * variance / c + 2 * (rho / c) ** 2 * variance


@dataclass(frozen=True)
class Landscapes:
    """Many sets of K nonconvex tasks, ½Σ_a h_ia(θ_a − c_ia)² + s Σ_a(1 − cos bθ_a), one set a row.

    Attributes:
        curvatures: (n, K, d) h ≥ 0.
        centres: (n, K, d) c.
        weights: (n, K) ω.
    """

    curvatures: Tensor
    centres: Tensor
    weights: Tensor

    @classmethod
    def draw(cls, count: int, tasks: int, dimension: int, seed: int) -> "Landscapes":
        """Random ones: curvatures over two decades, weights over one."""
        rng = np.random.default_rng(seed)
        h = np.exp(rng.uniform(-3, 1, (count, tasks, dimension)))
        c, w = rng.normal(size=(count, tasks, dimension)), np.exp(rng.uniform(-1, 1.5, (count, tasks)))
        return cls(*(torch.from_numpy(x) for x in (h, c, w)))

    def losses(self, theta: Tensor) -> Tensor:
        """(n, d) → (n, K)."""
        height, frequency = WAVES
        quadratic = 0.5 * (self.curvatures * (theta[:, None] - self.centres).square()).sum(-1)
        return quadratic + height * (1 - (frequency * theta).cos()).sum(-1)[:, None]

    def gradients(self, theta: Tensor) -> Tensor:
        """(n, d) → (n, K, d)."""
        height, frequency = WAVES
        ripple = height * frequency * (frequency * theta).sin()
        return self.curvatures * (theta[:, None] - self.centres) + ripple[:, None]

    def smoothness(self, weights: Tensor) -> Tensor:
        """Smoothness of Σw_iL_i, (n,): the diagonal Hessian is at most Σw_i(h_i + sb²)."""
        height, frequency = WAVES
        return torch.einsum("nk,nkd->nd", weights, self.curvatures + height * frequency**2).amax(-1)


@dataclass(frozen=True)
class Averages:
    """Of the trajectories: means over the steps of ‖g_J‖², ‖μ‖‖g_J‖, and the least step over κη‖g_J‖, each (n,)."""

    joint: Tensor
    product: Tensor
    step: Tensor


def run(tasks: Landscapes, learning_rate: Tensor, steps: int, *, nu: float, center: Center = "mean") -> Averages:
    """Noiseless CAME-Grad from θ = 2, a trajectory each set of tasks.

    Args:
        tasks: n sets.
        learning_rate: (n,) η.
        steps: T.
        nu, center: of CAME-Grad.
    """
    theta = torch.full_like(tasks.curvatures[:, 0], 2.0)
    joint = torch.zeros(len(theta), dtype=torch.float64)
    product, least = torch.zeros_like(joint), torch.full_like(joint, torch.inf)
    for _ in range(steps):
        r = came_grad(tasks.gradients(theta), tasks.weights, rho=RHO, nu=nu, kappa=KAPPA, center=center)
        size = r.joint.norm(dim=-1)
        joint += size.square() / steps
        product += size * r.mean.norm(dim=-1) / steps
        least = torch.minimum(least, r.update.norm(dim=-1) / (KAPPA * size))
        theta = theta - learning_rate[:, None] * r.update
    return Averages(joint, product, least)


def gap(tasks: Landscapes, weights: Tensor) -> Tensor:
    """An upper bound of Δ from θ = 2, (n,): the quadratic part's minimum bounds the loss from below.

    Args:
        tasks: n sets.
        weights: (n, K) of the loss.
    """
    theta = torch.full_like(tasks.curvatures[:, 0], 2.0)
    hessian = torch.einsum("nk,nkd->nd", weights, tasks.curvatures)
    lowest = torch.einsum("nk,nkd,nkd->nd", weights, tasks.curvatures, tasks.centres) / hessian
    quadratic = 0.5 * (tasks.curvatures * (lowest[:, None] - tasks.centres).square()).sum(-1)
    return (weights * (tasks.losses(theta) - quadratic)).sum(-1)


def scaled_by_mean(nu: float) -> Callable[[Tensor], Tensor]:
    """Coefficients of F' = κ[(1−ν)‖μ‖û + νg_J], CAME-Grad with stage 2 scaled by ‖μ‖, at ω = (1, 4).

    Args:
        nu: of CAME-Grad.

    Example:
        >>> scaled_by_mean(0.0)(torch.eye(2).double())  # û ∥ μ: F' = κμ
        tensor([0.7500, 0.7500], dtype=torch.float64)
    """
    w = torch.tensor(WEIGHTS, dtype=torch.float64)

    def coefficients(G: Tensor) -> Tensor:
        r = came_grad(G, w, rho=RHO, nu=0.0, kappa=KAPPA)
        share = r.mean.norm(dim=-1) / r.joint.norm(dim=-1)
        return (1 - nu) * share[..., None] * r.coefficients + nu * KAPPA * w

    return coefficients


def noisy_average(rho: float, steps: int, learning_rate: float, deviations: Array, paths: int, seed: int) -> float:
    """(1/T)ΣE‖g_J‖² of the pair ½‖θ‖², ½‖θ − 1‖² in 20 dimensions at ω = (1, 4), weighted centre, from θ = 0.

    Args:
        rho, steps, learning_rate: of training.
        deviations: (2,) of one component of the noise.
        paths, seed: of the noise.

    Example:
        >>> noisy_average(0.5, 1, 0.01, np.zeros(2), 2, 0)  # at the start, ‖4·1‖²
        320.0
    """
    generator = torch.Generator().manual_seed(seed)
    theta, w = torch.zeros(paths, 20, dtype=torch.float64), torch.tensor(WEIGHTS, dtype=torch.float64)
    deviation, total = torch.from_numpy(deviations)[:, None], 0.0
    for _ in range(steps):
        exact = torch.stack([theta, theta - 1], 1)
        total += float(torch.einsum("k,nkd->nd", w, exact).square().sum(-1).mean()) / steps
        seen = exact + deviation * torch.randn(exact.shape, generator=generator, dtype=torch.float64)
        theta = theta - learning_rate * came_grad(seen, w, rho=rho, nu=NU, kappa=KAPPA, center="weighted").update
    return total


def _noisy_descent(samples: int, seed: int) -> float:
    """Least E g_JᵀF/(κG²) − (c_ρ − σ/G) over random gradients and noise, by exact draws; never negative."""
    rng, least = np.random.default_rng(seed), np.inf
    for case in range(40):
        tasks = int(rng.integers(2, 5))
        L = rng.normal(size=(tasks, tasks)) * np.exp(rng.uniform(-2, 2, (tasks, 1)))
        S = np.diag(np.exp(rng.uniform(-4, 2, tasks)))
        w, d = rng.uniform(0.2, 4, tasks), int(rng.integers(tasks, 60))
        found = expectation(rule(w, center="weighted"), L @ L.T, S, d, samples=samples, seed=seed + case)
        variance = d * float(w @ S @ w)
        G = (float(np.sum((w @ L) ** 2)) + variance) ** 0.5
        product = float((w @ found.exact) @ found.drift) / (KAPPA * G**2)
        least = min(least, product - (C_RHO - variance**0.5 / G))
    return least


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Bounds along trajectories of nonconvex tasks, chatter and its cure, and the noisy bound with its floor."""
    derive()
    sets = [Landscapes.draw(40, tasks, 10, seed + tasks) for tasks in (2, 4)]
    weighted = _worst(sets, nu=NU, center="weighted", a=C_RHO)
    high = _worst(sets, nu=0.8, center="mean", a=0.6)
    wrong = _worst(sets, nu=NU, center="mean", a=C_RHO)
    mean, chattering, step = _mean_bound(sets)

    start = torch.tensor([2.0, 2.0], dtype=torch.float64)
    still = last(descend(start, scaled_by_mean(0.0), 1000, 0.05))
    fused = last(descend(start, scaled_by_mean(NU), 1500, 0.05))
    again = last(descend(fused, scaled_by_mean(NU), 1, 0.05))
    at_still = float((still - example().minimizer([1.0, 1.0])).norm())
    G = example().gradients(fused)
    ratio = float(G.mean(0).norm() / (torch.tensor(WEIGHTS, dtype=torch.float64) @ G).norm())
    off = float((fused - again).norm())
    printed = rule(WEIGHTS)
    chatter = last(descend(start, lambda G: printed(G @ G.mT), 1000, 0.05))
    at_chatter = float((chatter - example().minimizer([1.0, 1.0])).norm())

    descent = _noisy_descent(max(paths // 5, 100), seed)
    deviations = np.array([0.3, 1.0])
    variance = 20 * float(np.square(WEIGHTS) @ deviations**2)
    runs, kept, floor = max(paths // 200, 8), [], []
    for T in HORIZONS:
        eta, shrinking = 0.5 / T**0.5, 1 / T**0.25
        kept.append(noisy_average(min(shrinking, RHO), T, eta / 3, deviations, runs, seed))
        floor.append(noisy_average(RHO, T, eta / 3, deviations, runs, seed))
    slopes = [float(np.log(x[-1] / x[0]) / np.log(HORIZONS[-1] / HORIZONS[0])) for x in (kept, floor)]
    bound = predict_noisy_average(20 * 8.0 / 5, eta / 3, 5.0, HORIZONS[-1], variance, RHO)
    return [
        Check("T16.a", "weighted centre: (1/T)Σ‖g_J‖² over 2LΔ/(c_ρ²T), largest", 1.0, weighted, max(0.0, weighted - 1),
              0, "absolute", "80 nonconvex sets of 2 and 4 tasks, d = 10, T = 200, no noise"),
        Check("T16.b", "ν = 0.8: the same with 2ν − 1 for c_ρ", 1.0, high, max(0.0, high - 1), 0, "absolute",
              "the same sets"),
        Check("T16.c", "ν = 0.2: (1/T)Σ‖g_J‖‖μ‖ over Δ_μ/(ηκmT) + chatter, largest", 1.0, mean, max(0.0, mean - 1), 0,
              "absolute", "the same sets, η = 0.3/(κL), T = 400"),
        Check("T16.d", "ν = 0.2: step over κη‖g_J‖, least; at least 1 − 2ν", 1 - 2 * NU, step,
              max(0.0, 1 - 2 * NU - step), 1e-9, "absolute", "the same trajectories"),
        Check("T16.e", "the same bound without the chatter term", 1.0, chattering, max(0.0, chattering - 1), 0,
              "absolute", "the same trajectories", control=True),
        Check("T16.f", "the bound of T16.a with the paper's centre", 1.0, wrong, max(0.0, wrong - 1), 0, "absolute",
              "the same sets", control=True),
        Check("T16.g", "stage 2 scaled by ‖μ‖, ν = 0, constant step: distance from the mean's minimizer", 0.0, at_still,
              at_still, 1e-6, "absolute", "1,000 noiseless steps, η = 0.05; Gramians see ‖μ‖ > 1e-8‖g‖", scale=1.0),
        Check("T16.h", "the same for CAME-Grad as printed, ν = 0.2", 0.0, at_chatter, at_chatter, 1e-6, "absolute",
              "1,000 noiseless steps, η = 0.05", control=True, scale=1.0),
        Check("T16.i", "stage 2 scaled by ‖μ‖, ν = 0.2, rests where ‖μ‖/‖g_J‖ = ν/(1−ν)", NU / (1 - NU), ratio,
              max(abs(ratio - NU / (1 - NU)), off), 1e-6, "absolute", "1,500 noiseless steps, η = 0.05; moves no more"),
        Check("T16.j", "noise: E g_JᵀF/(κG²) ≥ c_ρ − σ/G, least margin", 0.0, descent, max(0.0, -descent), 1e-9,
              "absolute", "40 random settings, K = 2 … 4, d ≤ 60, exact draws", scale=1.0),
        Check("T16.k", "noise: (1/T)ΣE‖g_J‖² below the bound, share of it", 1.0, floor[-1] / bound,
              max(0.0, floor[-1] / bound - 1), 0, "absolute", f"{runs} paths, d = 20, T = 1,024"),
        Check("T16.l", "η ∝ T^{-1/2}, ρ ∝ T^{-1/4}: (1/T)ΣE‖g_J‖² ∝ T^{-1/2}, slope", -0.5, slopes[0],
              max(0.0, slopes[0] + 0.5), 0.025, "absolute", f"T = 64, 256, 1,024, {runs} paths"),
        Check("T16.m", "the same at ρ = ½, where the floor is", -0.5, slopes[1], max(0.0, slopes[1] + 0.5), 0.025,
              "absolute", f"T = 64, 256, 1,024, {runs} paths", control=True),
    ]  # fmt: skip


def _worst(sets: list[Landscapes], *, nu: float, center: Center, a: float, steps: int = 200) -> float:
    """Largest (1/T)Σ‖g_J‖² over its bound at η = a/(κL)."""
    worst = 0.0
    for tasks in sets:
        L = tasks.smoothness(tasks.weights)
        found = run(tasks, a / (KAPPA * L), steps, nu=nu, center=center).joint
        worst = max(worst, float((found * a**2 * steps / (2 * L * gap(tasks, tasks.weights))).max()))
    return worst


def _mean_bound(sets: list[Landscapes], *, steps: int = 400) -> tuple[float, float, float]:
    """Largest (1/T)Σ‖g_J‖‖μ‖ over its bound, the same without chatter, and the least step over κη‖g_J‖."""
    m = (1 - NU) * C_RHO - NU
    worst, bare, least = 0.0, 0.0, np.inf
    for tasks in sets:
        equal = torch.full_like(tasks.weights, 1 / tasks.weights.shape[1])
        L = tasks.smoothness(equal)
        eta = 0.3 / (KAPPA * L)
        found = run(tasks, eta, steps, nu=NU)
        transient = gap(tasks, equal) / (eta * KAPPA * m * steps)
        worst = max(worst, float((found.product / (transient + eta * KAPPA * L / (2 * m) * found.joint)).max()))
        bare = max(bare, float((found.product / transient).max()))
        least = min(least, float(found.step.min()))
    return worst, bare, least
