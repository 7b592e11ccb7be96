r"""T14, conservation (new): CAME-Grad converts drift into diffusion, and never makes more than that.

Stage 2 gives u_en the length κ‖g̃_J‖ of the *noisy* joint gradient, and fusion is a convex combination with κg̃_J:

.. math:: ‖F‖² = κ²‖\tilde g_J‖²\,[1 - 2ν(1-ν)(1-\cos(u^*, \tilde g_J))] ≤ κ²‖\tilde g_J‖²

path by path, for every K, ρ, ν and centre (where u* = 0 it is smaller still). Proof: ‖(1−ν)û + νĝ‖² for unit vectors.
Take expectations: E‖g̃_J‖² = ‖g_J‖² + tr Σ_LS whatever the law of the noise, if only its mean is 0 and its covariance
finite. With SNR_J = ‖g_J‖²/tr Σ_LS and R = tr Cov F/(κ² tr Σ_LS), the diffusion relative to linear scalarization's at
the learning rate κη (T8),

.. math:: R + \frac{‖E F‖²}{κ²\,\mathrm{tr}\,Σ_{LS}}
   = 1 + SNR_J - 2ν(1-ν)\frac{E[‖\tilde g_J‖²(1-\cos)]}{\mathrm{tr}\,Σ_{LS}} ≤ 1 + SNR_J ,

with equality at ν = 0 and ν = 1. So R > 1 needs a drift shorter than κ‖g_J‖: what diffusion gains, drift has lost.

**How R depends on d.** Let noise be isotropic, Cov(ε_i, ε_j) = S_ij I, T = dS. ∂c/∂g_j lies in the span of the
gradients, of dimension r, so J is c_iI across it and does not know d inside it: to first order in the noise

.. math:: \mathrm{tr}\,JΣJ^⊤ = (d - r)\,c^⊤Sc + τ, \qquad
   \frac{\mathrm{tr}\,JΣJ^⊤}{κ²\,\mathrm{tr}\,Σ_{LS}} = \frac{c^⊤Tc}{κ²\,ω^⊤Tω} + \frac{a}{d}

*exactly*, with τ and a free of d. T4's ratios 0.63 (120°) and 0.54 (150°) are those of d = 2; the limit is 1 for both
and the gap is 0.747/d and 0.914/d. Beyond first order tr Cov F = c̄ᵀTc̄ (1 + O(1/d)) at fixed T and GGᵀ (T13).

What it does not say: that diffusion helps, or where it acts; anisotropic noise has its own effective d.
"""

from collections.abc import Sequence

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import linregress

from optimizers import came_grad
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.examples import KAPPA, pair
from sde_mtl.theory.hidden_weights import Rule, expectation, noisy_gradients, rule
from sde_mtl.theory.noisy_training import heavy_tailed
from sde_mtl.theory.sensitivity import linearize

Array = NDArray[np.float64]
STANDARD_ERRORS = 5.0
ANGLES = (120.0, 150.0)
"""In degrees, of T4's ratios."""


def derive() -> sympy.Expr:
    """The share 1 − 2ν(1−ν)(1−cos) of the squared length that fusion leaves.

    Raises:
        DerivationError: if it is not that of two unit vectors, or exceeds 1 for ν in [0, 1].

    Example:
        >>> derive()
        -2*nu*(1 - cosine)*(1 - nu) + 1
    """
    nu, cosine = sympy.symbols("nu cosine", real=True)
    square = (1 - nu) ** 2 + 2 * nu * (1 - nu) * cosine + nu**2
    claimed = 1 - 2 * nu * (1 - nu) * (1 - cosine)
    require(sympy.expand(square - claimed) == 0, "T14, length of the fused vector")
    require(sympy.expand(claimed.subs(cosine, 1) - 1) == 0, "T14, equality for agreeing vectors")
    require(sympy.expand(sympy.diff(claimed, cosine) - 2 * nu * (1 - nu)) == 0, "T14, monotone in the cosine")
    return claimed


def predict(signal_to_noise: float, drift: float = 0.0, lost: float = 0.0) -> float:
    """R = 1 + SNR_J less what the drift keeps and what fusion loses, both over κ² tr Σ_LS; the bound for 0 and 0.

    Args:
        signal_to_noise: SNR_J.
        drift: ‖E F‖²/(κ² tr Σ_LS).
        lost: 2ν(1−ν)E[‖g̃_J‖²(1−cos)]/tr Σ_LS.

    Example:
        >>> predict(0.5, drift=0.3)
        1.2
    """
    return 1 + signal_to_noise - drift - lost


def predict_ratio(ratio: float, angle: float, task_weights: ArrayLike, dimension: int) -> tuple[float, float]:
    """Limit and gap a of tr JΣJᵀ/(κ² tr Σ_LS) = limit + a/d for independent noise of equal variance, from d = 2.

    Args:
        ratio, angle: of the norms of the two gradients, and their angle in degrees.
        task_weights: (2,).
        dimension: d of the returned value.

    Returns:
        The ratio at d, and a.

    Example:
        >>> [round(r, 4) for r in predict_ratio(1.0, 120.0, [0.5, 0.5], 10)]
        [0.9253, -0.7467]
    """
    w = np.asarray(task_weights, np.float64)
    linear = linearize(pair(ratio, np.deg2rad(angle)), torch.from_numpy(w), kappa=1.0)
    J = linear.jacobian.numpy()
    tau = float((J**2).sum())
    c = rule(w, kappa=1.0)(torch.from_numpy(np.array(_gramian(ratio, angle)))).numpy()
    limit = float(c @ c / (w @ w))
    gap = float((tau - 2 * c @ c) / (w @ w))
    return limit + gap / dimension, gap


def _gramian(ratio: float, angle: float) -> list[list[float]]:
    cross = ratio * float(np.cos(np.deg2rad(angle)))
    return [[1.0, cross], [cross, ratio**2]]


def jacobian_ratio(ratio: float, angle: float, task_weights: Sequence[float], dimension: int) -> float:
    """tr JΣJᵀ/tr Σ_LS at κ = 1 by the Jacobian in d dimensions.

    Args:
        ratio, angle, task_weights, dimension: as in :func:`predict_ratio`.

    Example:
        >>> [round(jacobian_ratio(1.0, 120.0, (0.5, 0.5), d), 3) for d in (2, 10, 100)]
        [0.627, 0.925, 0.993]
    """
    w = torch.tensor(task_weights, dtype=torch.float64)
    J = linearize(pair(ratio, np.deg2rad(angle), dimension), w, kappa=1.0).jacobian
    return float(J.square().sum() / (dimension * w.square().sum()))


def diffusion(
    rule: Rule, gradients_gramian: ArrayLike, covariance: ArrayLike, dimension: int, *, samples: int, seed: int = 0
) -> tuple[float, float]:
    """tr Cov F and its standard error, by exact K×K draws: E[cᵀM̃c] − ‖E F‖².

    Args:
        rule: Gramians to coefficients.
        gradients_gramian, covariance, dimension: GGᵀ, S and d.
        samples, seed: of the draws.

    Example:
        >>> trace, _ = diffusion(rule([1.0, 1.0], nu=1.0, kappa=1.0), np.eye(2), 0.1 * np.eye(2), 50, samples=10_000)
        >>> abs(trace - 10) < 0.1  # tr Σ_LS
        True
    """
    drawn = noisy_gradients(gradients_gramian, covariance, dimension, samples, seed)
    c = rule(drawn.gramians).numpy()
    squares = np.einsum("ni,nij,nj->n", c, drawn.gramians.numpy(), c)
    drift = expectation(rule, gradients_gramian, covariance, dimension, samples=samples, seed=seed).drift
    return float(squares.mean() - drift @ drift), float(squares.std() / samples**0.5)


def _balance(
    G: Array, w: Array, epsilon: Array, *, rho: float, nu: float
) -> tuple[float, float, float, float]:  # fmt: skip
    """R, what the drift keeps, what fusion loses and the standard error of R, of a sample of noise (n, K, d)."""
    result = came_grad(torch.from_numpy(G + epsilon), torch.from_numpy(w), rho=rho, nu=nu, kappa=KAPPA)
    F, u, joint = result.update.numpy(), result.rectified.numpy(), result.joint.numpy()
    of_noise = float((np.einsum("k,nkd->nd", w, epsilon) ** 2).sum(-1).mean())
    unit = KAPPA**2 * of_noise
    length = (joint**2).sum(-1)
    cosine = (u * joint).sum(-1) / (np.linalg.norm(u, axis=-1) * np.sqrt(length))
    lost = float((2 * nu * (1 - nu) * length * (1 - cosine)).mean() / of_noise)
    mean = F.mean(0)
    squares = ((F - mean) ** 2).sum(-1)
    return (float(squares.mean() / unit), float(mean @ mean / unit), lost,
            float(squares.std() / unit / len(F) ** 0.5))  # fmt: skip


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """The bound path by path, the identity under heavy tails, what R > 1 costs, and the dependence on d; k = 5."""
    derive()
    rng = np.random.default_rng(seed)
    longest, worst = 0.0, 0.0
    for tasks in (2, 3, 5):
        G = torch.from_numpy(heavy_tailed(rng, (4000, tasks, 4)) * np.exp(rng.uniform(-3, 3, (4000, tasks, 1))))
        w = torch.from_numpy(rng.uniform(0.1, 5, (4000, tasks)))
        for rho, nu, center in ((0.0, 0.0, "mean"), (0.5, 0.2, "mean"), (0.9, 0.6, "weighted"), (0.3, 0.0, "weighted")):
            r = came_grad(G, w, rho=rho, nu=nu, kappa=KAPPA, center="weighted" if center == "weighted" else "mean")
            size = r.joint.square().sum(-1)
            share = r.update.square().sum(-1) / (KAPPA**2 * size)
            cosine = torch.nn.functional.cosine_similarity(r.rectified, r.joint, dim=-1)
            longest = max(longest, float(share.sqrt().max()))
            worst = max(worst, float((share - 1 + 2 * nu * (1 - nu) * (1 - cosine)).abs().max()))

    # Near μ = 0 the direction is the noise's: most of the drift becomes diffusion. Heavy tails, K = 3, d = 6.
    G3 = np.zeros((3, 6))
    G3[0, 0], G3[1, 0], G3[2, 1] = 1.0, -0.9, 0.2
    w3 = np.array([1.0, 4.0, 0.5])
    epsilon = heavy_tailed(rng, (20 * paths, 3, 6)) * np.array([0.2, 0.3, 0.1])[:, None]
    exact_traces = 6 * float(w3**2 @ np.square([0.2, 0.3, 0.1]))
    signal = float(np.sum((w3 @ G3) ** 2)) / exact_traces
    energy = came_grad(torch.from_numpy(G3 + epsilon), torch.from_numpy(w3), nu=0.0, kappa=KAPPA).update.numpy()
    squares = (energy**2).sum(-1) / (KAPPA**2 * exact_traces)
    squares_error = float(squares.std() / len(squares) ** 0.5)
    R, drift, lost, error = _balance(G3, w3, epsilon, rho=0.5, nu=0.2)

    dimensions = (3, 10, 50)
    affine = max(
        abs(jacobian_ratio(b, phi, w, d) - predict_ratio(b, phi, w, d)[0])
        for phi in ANGLES for b, w in ((1.0, (0.5, 0.5)), (0.6, (1.0, 4.0))) for d in dimensions
    )  # fmt: skip
    ten = predict_ratio(1.0, 120.0, [0.5, 0.5], 10)[0]
    S = 0.02**2 * np.eye(2)
    trace, trace_error = _small_noise_ratio(rng, 10, 0.02, 20 * paths)
    slope, slope_error = _rate(paths, seed)
    thousand = np.array(_gramian(1.0, 150.0))
    r2 = rule([0.5, 0.5])
    far, far_error = diffusion(r2, thousand, S, 1000, samples=paths, seed=seed)
    c = expectation(r2, thousand, S, 1000, samples=paths, seed=seed).coefficients
    predicted_far = float(c @ c * 1000 * S[0, 0])
    return [
        Check("T14.a", "‖F‖ ≤ κ‖g̃_J‖ path by path: largest ratio", 1.0, longest, max(0.0, longest - 1), 1e-9,
              "absolute", "12,000 heavy-tailed matrices, K = 2, 3, 5, d = 4, four settings"),
        Check("T14.b", "‖F‖²/(κ²‖g̃_J‖²) = 1 − 2ν(1−ν)(1−cos): largest error", 0.0, worst, worst, 1e-7, "absolute",
              "the same matrices; u* nearly cancels in some, which costs digits", scale=1.0),
        Check("T14.c", "ν = 0: R + ‖E F‖²/(κ² tr Σ_LS) = 1 + SNR_J", predict(signal), float(squares.mean()),
              abs(float(squares.mean()) - predict(signal)) / squares_error, STANDARD_ERRORS, "SE",
              f"{20 * paths} Student noises of kurtosis 9, K = 3, d = 6", standard_error=squares_error),
        Check("T14.d", "ν = 0.2: R = 1 + SNR_J − drift − loss by fusion", predict(signal, drift, lost), R,
              abs(R - predict(signal, drift, lost)) / error, STANDARD_ERRORS, "SE",
              f"{20 * paths} Student noises of kurtosis 9, K = 3, d = 6", standard_error=error),
        Check("T14.e", "diffusion never exceeds that of linear scalarization at κη, R ≤ 1", 1.0, R,
              max(0.0, R - 1) / error, STANDARD_ERRORS, "SE", "the same noises", control=True, standard_error=error),
        Check("T14.f", "tr JΣJᵀ/(κ² tr Σ_LS) is affine in 1/d: largest error", 0.0, affine, affine, 1e-9, "absolute",
              "Jacobians at d = 3, 10, 50, two angles, two pairs", scale=1.0),
        Check("T14.g", "the ratio at d = 10, φ = 120°: 0.925 (0.627 at d = 2)", ten, trace,
              abs(trace - ten) / trace_error, STANDARD_ERRORS, "SE", f"{20 * paths} noises of 0.02",
              standard_error=trace_error),
        Check("T14.h", "the ratio of d = 2 at d = 10", predict_ratio(1.0, 120.0, [0.5, 0.5], 2)[0], trace,
              abs(trace - predict_ratio(1.0, 120.0, [0.5, 0.5], 2)[0]) / trace_error, STANDARD_ERRORS, "SE",
              f"{20 * paths} noises of 0.02", control=True, standard_error=trace_error),
        Check("T14.i", "tr Cov F = c̄ᵀTc̄ at d = 1,000, φ = 150°", predicted_far, far, abs(far / predicted_far - 1), 0.01,
              "relative", f"{paths} exact draws, signal-to-noise ratio 2.5", standard_error=far_error),
        Check("T14.j", "|tr Cov F/c̄ᵀTc̄ − 1| ∝ 1/d: slope", -1.0, slope, abs(slope + 1), max(3 * slope_error, 0.02),
              "absolute", f"log–log over d = 40 … 1,280, slope ± {slope_error:.3f}", standard_error=slope_error),
    ]  # fmt: skip


def _small_noise_ratio(rng: np.random.Generator, dimension: int, deviation: float, samples: int) -> tuple[float, float]:
    """tr Cov F/tr Σ_LS at κ = 1 of the pair at 120°, with its standard error."""
    G, w = pair(1.0, np.deg2rad(120.0), dimension), torch.tensor([0.5, 0.5], dtype=torch.float64)
    epsilon = torch.from_numpy(deviation * rng.normal(size=(samples, 2, dimension)))
    F = came_grad(G + epsilon, w, kappa=1.0).update
    squares = (F - F.mean(0)).square().sum(-1) / (0.5 * dimension * deviation**2)
    return float(squares.mean()), float(squares.std() / samples**0.5)


def _rate(paths: int, seed: int) -> tuple[float, float]:
    """Slope of |tr Cov F/c̄ᵀTc̄ − 1| in d at fixed T and GGᵀ, with its standard error; draws of the same seed."""
    M, T = np.array(_gramian(1.0, 120.0)), np.diag([0.4, 0.4])
    r, sizes, gaps = rule([1.0, 2.0]), np.array([40, 80, 160, 320, 640, 1280]), []
    for d in sizes:
        drawn = noisy_gradients(M, T / d, int(d), 8 * paths, seed)
        c = r(drawn.gramians).numpy()
        squares = np.einsum("ni,nij,nj->n", c, drawn.gramians.numpy(), c)
        # E M̃ is known: what cᵀM̃c owes to M̃ − E M̃, by regression, is variance without information.
        deviation = (drawn.gramians.numpy() - M - T)[:, [0, 0, 1], [0, 1, 1]]
        trend = np.linalg.lstsq(deviation.T @ deviation, deviation.T @ (squares - squares.mean()), rcond=1e-12)[0]
        found = expectation(r, M, T / d, int(d), samples=4 * paths, seed=seed)
        mean, trace = found.coefficients, (squares - deviation @ trend).mean() - found.drift @ found.drift
        gaps.append(abs(trace / (mean @ T @ mean) - 1))
    line = linregress(np.log(sizes), np.log(gaps))
    return float(line.slope), float(line.stderr)
