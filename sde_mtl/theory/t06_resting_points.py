r"""T6, where CAME-Grad comes to rest without noise (new): at a minimizer of the *mean* or of the weighted loss, by ν.

With c_ρ = √(1−ρ²), and û = u*/‖u*‖, F = κ[(1−ν)‖g_J‖û + νg_J]:

(i)  ν < c_ρ/(1+c_ρ) (0.4641 at ρ = ½): F descends the mean loss wherever μ ≠ 0 and g_J ≠ 0, for ∠(u*, μ) ≤ arcsin ρ:

     .. math:: μ^⊤F ≥ κ‖g_J‖‖μ‖\,[(1-ν)c_ρ - ν] > 0 .

(ii) ν > ½: F descends the weighted loss, g_JᵀF ≥ κ(2ν−1)‖g_J‖² > 0.

F vanishes where g_J = 0, and with ν ≠ ½ and μ ≠ 0 only there; at μ = 0 its direction jumps. The rest set is therefore
{μ = 0} ∪ {g_J = 0}, and ν decides what of it attracts. Above ½ it is g_J = 0. Below the first boundary it is μ = 0,
whatever ω is: the task weights matter in the other regime only. There F does not vanish: with a constant step the
iterates chatter around μ = 0 with amplitude ∝ ηκ‖g_J‖, a sliding mode; with a decaying step they converge.

But the points g_J = 0, μ ≠ 0 are only *semi-stable* below ½. They are left, at the rate κσ of
:mod:`sde_mtl.theory.semistable`, along one ray; along another they attract. In d = 1 a whole side converges to them:
with L = ½θ², ½(θ−1)² and ω = (1, 4) every start above 0.8 ends at 0.8, the weighted minimizer. In d ≥ 2 they attract
no open set of starts if H is near a multiple of I, but they do where the approach is along a direction more than 1/ν
times flatter than all others. In floating point such starts leave after a plateau, of thousands of steps in the check.

Between the two boundaries, K = 2 (new): near μ = 0 the gradients are ±g, and with x = −cos(μ, g_J)

     .. math:: \hat u ⊥ g \text{ if } |x| ≤ ρ, \qquad \hat u ∝ \hat μ + ρ\hat g_J \text{ if } x > ρ,

     .. math:: \frac{μ^⊤F}{κ‖g_J‖‖μ‖} = (1-ν)\frac{1-ρx}{\sqrt{1-2ρx+ρ²}} - νx \quad (x > ρ),

whose sign at ν = ½ is that of (1 − x²)(1 − 2ρx). So for ρ ≤ ½ the mean loss descends near its minimizer for *every*
ν < ½: the true boundary is ½, not c_ρ/(1+c_ρ), which assumes the worst angle of u* and the worst angle of g_J at
once. For ρ > ½ descent fails in the cone x > 1/(2ρ) just below ½; in the phase diagram the transition is at ½ for
these ρ all the same.

The bounds are proven; that training ends there is simulated: two quadratic tasks in the plane, gradient descent and
Adam. For Adam nothing is proven, its step is not F.

What it does not say: anything with gradient noise, which moves the resting point (E F is not F, T12); nonconvex losses.
The control is linear scalarization with equal weights, which settles at the mean's minimizer too.
"""

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from scipy.stats import linregress

from optimizers import came_grad
from sde_mtl.theory import semistable
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.descent import chatter, phase_diagram, rest
from sde_mtl.theory.examples import WEIGHTS, example

Array = NDArray[np.float64]
NEAR = 1e-5
"""‖μ‖/‖g‖ at which the limit μ → 0 is checked."""


def derive() -> dict[str, sympy.Expr]:
    """Both lower bounds and the ν at which they become positive.

    Returns:
        "mean" and "weighted", the boundaries in ν; "near", μᵀF/(κ‖g_J‖‖μ‖) near the mean's minimizer for K = 2.

    Raises:
        DerivationError: if a bound does not follow.

    Example:
        >>> derive()["weighted"]
        1/2
        >>> derive()["mean"].free_symbols
        {rho}
    """
    nu, rho = sympy.symbols("nu rho", positive=True)
    c = sympy.sqrt(1 - rho**2)
    cosine, other = sympy.symbols("cosine other", real=True)
    # cosine = cos(u*, μ) ≥ c_ρ, other = cos(g_J, μ) ≥ −1; all over κ‖g_J‖‖μ‖.
    towards_mean = (1 - nu) * cosine + nu * other
    require(sympy.diff(towards_mean, cosine) == 1 - nu, "T6, monotone in cos(u*, μ)")
    require(sympy.diff(towards_mean, other) == nu, "T6, monotone in cos(g_J, μ)")
    least = towards_mean.subs({cosine: c, other: -1})
    mean = sympy.solve(least, nu)[0]
    require(sympy.simplify(mean - c / (1 + c)) == 0, "T6, boundary of the mean regime")
    # over κ‖g_J‖²: (1−ν)cos(u*, g_J) + ν with the cosine ≥ −1.
    weighted = sympy.solve(-(1 - nu) + nu, nu)[0]
    x = sympy.Symbol("x", positive=True)
    size = sympy.sqrt(1 - 2 * rho * x + rho**2)  # ‖μ̂ + ρĝ_J‖ with μ̂ᵀĝ_J = −x
    near = (1 - nu) * (1 - rho * x) / size - nu * x
    sign = sympy.factor(sympy.expand((1 - rho * x) ** 2 - x**2 * size**2))
    require(sympy.expand(sign - (1 - x**2) * (1 - 2 * rho * x)) == 0, "T6, sign at ν = ½ near the mean's minimizer")
    return {"mean": mean, "weighted": weighted, "near": near}


def boundaries(rho: float) -> tuple[float, float]:
    """ν below which the mean loss, and above which the weighted loss descends.

    Example:
        >>> [round(b, 4) for b in boundaries(0.5)]
        [0.4641, 0.5]
    """
    c = (1 - rho**2) ** 0.5
    return c / (1 + c), 0.5


def near_mean(nu: float, rho: float, *, samples: int = 4000) -> tuple[float, float]:
    """Least μᵀF/(κ‖g_J‖‖μ‖) near the mean's minimizer for K = 2: in closed form, and by the solver at ‖μ‖ = 1e-5‖g‖.

    The limit μ → 0 leaves O(‖μ‖/‖g‖); a Gramian in float64 cannot go much further, since ‖μ‖² cancels in it.

    Example:
        >>> closed, solved = near_mean(0.5, 0.8)  # ρ > ½: descent fails in a cone
        >>> closed < 0, abs(closed - solved) < 1e-4
        (True, True)
    """
    x = np.cos(np.linspace(0, np.pi, samples))
    outer = (1 - nu) * (1 - rho * np.abs(x)) / np.sqrt(1 - 2 * rho * np.abs(x) + rho**2)
    inner = (1 - nu) * np.sqrt(1 - x**2)
    closed = np.where(np.abs(x) > rho, outer, inner) - nu * x
    g = torch.tensor([1.0, 0.0], dtype=torch.float64)
    mu = NEAR * torch.from_numpy(np.stack([x, np.sqrt(1 - x**2)], 1))
    w = torch.tensor(WEIGHTS, dtype=torch.float64)  # g_J ≈ −3g, so that x = cos(μ, g) = −cos(μ, g_J)
    r = came_grad(torch.stack([mu + g, mu - g], 1), w, rho=rho, kappa=1.0, nu=nu)
    solved = (mu * r.update).sum(-1) / (mu.norm(dim=-1) * r.joint.norm(dim=-1))
    return float(closed.min()), float(solved.min())


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Both descent regimes on random gradients, resting points on the pair of quadratics, chatter, and controls."""
    derive()
    rng = np.random.default_rng(seed)
    G = torch.from_numpy(rng.normal(size=(20_000, 3, 4)) * np.exp(rng.uniform(-2, 2, size=(20_000, 3, 1))))
    w = torch.from_numpy(rng.uniform(0.1, 5, size=(20_000, 3)))
    rho = 0.5
    low, _ = boundaries(rho)

    def least(nu: float, towards: str) -> float:
        result = came_grad(G, w, rho=rho, nu=nu)
        target = result.mean if towards == "mean" else result.joint
        size = target.norm(dim=-1) * result.joint.norm(dim=-1) * 1.5
        return float(((target * result.update).sum(-1) / size).min())

    problem = example()
    mean_rest, weighted_rest = problem.minimizer([1.0, 1.0]).numpy(), problem.minimizer(WEIGHTS).numpy()
    nus = (0.0, 0.2, 0.45, 0.49, 0.51, 0.6, 0.9)
    rests = rest(nus, steps=4000)
    below, above = rests[:4], rests[4:-1]
    by_adam = rest(nus, adam=True, steps=3000)
    adam_mean, adam_weighted = np.abs(by_adam[:4] - mean_rest).max(), np.abs(by_adam[4:-1] - weighted_rest).max()
    equal = max(np.abs(r[-1] - mean_rest).max() for r in (rests, by_adam))
    narrow = [near_mean(0.5, r) for r in (0.3, 0.5)]
    cone = near_mean(0.5, 0.8)
    off_mean = float(np.abs(below - mean_rest).max())
    off_weighted = float(np.abs(above - weighted_rest).max())
    etas = [0.0005, 0.001, 0.002, 0.004]
    amplitude = chatter(etas)
    line = linregress(np.log(etas), np.log(amplitude))
    slope, error = float(line.slope), float(line.stderr)
    quiet = chatter([0.002], nu=0.6)[0]
    bound = (1 - (low - 0.05)) * (1 - rho**2) ** 0.5 - (low - 0.05)
    descent, weighted = least(low - 0.05, "mean"), least(0.55, "weighted")
    apart = float(np.linalg.norm(mean_rest - weighted_rest))
    rows = [
        Check("T6.a", "ν = 0.414: cos-scaled μᵀF ≥ (1−ν)c_ρ − ν", bound, descent, max(0.0, bound - descent), 1e-9,
              "absolute", "20,000 random triples, least"),
        Check("T6.b", "ν = 0.55: g_JᵀF/(κ‖g_J‖²) ≥ 2ν − 1", 0.1, weighted, max(0.0, 0.1 - weighted), 1e-9,
              "absolute", "20,000 random triples, least"),
        Check("T6.c", "ν ≤ 0.49 rests at the mean's minimizer (−1/3, 0.0946)", float(mean_rest[0]),
              float(below[np.abs(below - mean_rest).max(1).argmax(), 0]), off_mean, 5e-3, "absolute",
              "noiseless training, decaying step, ν = 0, 0.2, 0.45, 0.49", scale=apart),
        Check("T6.d", "ν ≥ 0.51 rests at the weighted minimizer (−7/9, 0.2414)", float(weighted_rest[0]),
              float(above[np.abs(above - weighted_rest).max(1).argmax(), 0]), off_weighted, 1e-6, "absolute",
              "noiseless training, decaying step, ν = 0.51, 0.6, 0.9", scale=apart),
        Check("T6.e", "chatter amplitude ∝ η: slope", 1.0, slope, abs(slope - 1), 3 * max(error, 0.01), "absolute",
              f"log–log over 4 constant steps at ν = 0.2, slope ± {error:.3f}"),
        Check("T6.i", "Adam: ν ≤ 0.49 rests at the mean's minimizer, ν ≥ 0.51 at the weighted one", 0.0,
              float(max(adam_mean, adam_weighted)), float(max(adam_mean, adam_weighted)), 2e-2, "absolute",
              "torch.optim.Adam, decaying step, seven ν; simulated, not proven", scale=apart),
        Check("T6.j", "LS with equal weights rests at the mean's minimizer too, as the control", 0.0, float(equal),
              float(equal), 1e-6, "absolute", "the same runs, gradient descent and Adam", scale=apart),
        Check("T6.l", "K = 2, ρ ≤ ½: near μ = 0 the mean loss descends up to ν = ½", 0.0,
              min(n for _, n in narrow), max(0.0, -min(n for _, n in narrow)), 5 * NEAR, "absolute",
              "4,000 directions of μ, least μᵀF, ρ = 0.3 and 0.5", scale=1.0),
        Check("T6.m", "least μᵀF near μ = 0 in closed form, ρ = 0.8, ν = ½", cone[0], cone[1], abs(cone[0] - cone[1]),
              5 * NEAR, "absolute", "optimizers.came_grad, 4,000 directions of μ"),
        Check("T6.n", "the same descent at ρ = 0.8", 0.0, cone[1], max(0.0, -cone[1]), 5 * NEAR, "absolute",
              "4,000 directions of μ", control=True),
        Check("T6.f", "ν = 0.8: descent of the mean loss", 0.0, least(0.8, "mean"), max(0.0, -least(0.8, "mean")),
              1e-9, "absolute", "20,000 random triples, least", control=True),
        Check("T6.g", "ν = 0.2: descent of the weighted loss", 0.0, least(0.2, "weighted"),
              max(0.0, -least(0.2, "weighted")), 1e-9, "absolute", "20,000 random triples, least", control=True),
        Check("T6.h", "ν = 0.6 chatters around the mean's minimizer too", float(amplitude[2]), float(quiet),
              abs(float(quiet - amplitude[2])), 0.1, "absolute", "distance at η = 0.002", control=True),
    ]  # fmt: skip
    return rows + semistable.check(seed)


def check_full(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """The phase diagram on a fine grid, by gradient descent and by Adam."""
    nus = (0.0, 0.1, 0.2, 0.3, 0.4, 0.45, 0.48, 0.52, 0.55, 0.6, 0.7, 0.8, 0.9)
    expected = np.array([0.0 if nu < 0.5 else 1.0 for nu in nus])
    rows = []
    for name, adam in (("gradient descent", False), ("Adam", True)):
        diagram = phase_diagram(nus, (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95), steps=10_000, adam=adam)
        off = max(float(np.abs(diagram.position - expected).max()), float(diagram.off.max()))
        rows.append(Check(f"T6.full-{'adam' if adam else 'gd'}", f"the transition is at ν = ½ for every ρ, {name}", 0.0,
                          off, off, 0.05, "absolute", "91 resting points, ρ = 0.05 … 0.95"))  # fmt: skip
    return rows
