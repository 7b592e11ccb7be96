r"""T2, drift deviation: when the weighted sum of losses harms a task, and how far it points from u*.

K = 2 gradients of norms a, b at angle φ, weights ω, ratio x = b/a. Linear scalarization harms task 1
(:math:`g_1^⊤g_J < 0`) iff :math:`\cos φ < -ω_1a/(ω_2b)`, and task 2 iff :math:`\cos φ < -ω_2b/(ω_1a)`; never
both. The conflict-averse direction u* = μ + ρ‖μ‖ g_α/‖g_α‖ lies in the plane of the two gradients; with
A = 1 + x² − 2x cos φ, B = x cos φ − x², q = (1 − x²)/2, r = ρ‖μ‖ and m = x|sin φ|/A (norms in units of a),

.. math:: α = \mathrm{clip}\Big(-\frac{B}{A} - \frac{q\,m}{\sqrt{r²A - q²}},\,0,\,1\Big)
          \text{ if } |q| < r\sqrt A, \text{ else } α = 0 \;(q > 0) \text{ or } 1 \;(q < 0).

The angle ∠(g_J, u*) and the worst-task improvement min_i cos(g_i, u) follow by elementary geometry and
depend on (x, φ, ω, ρ) only.

(arXiv:2605.22635, section 3; theory T2.) What it does not say: harm in the linear approximation at one
step, along the exact gradients, is not harm over training; and for K > 2 there is no such closed form.
"""

from dataclasses import dataclass

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray

import optimizers
from optimizers import came_grad
from sde_mtl.theory.check import Check, require

Array = NDArray[np.float64]


def derive() -> dict[str, sympy.Expr]:
    """Derive the harm threshold and the interior stationary point of the dual.

    Returns:
        "cos_threshold" for task 1 and "shift", the stationary s = α + B/A.

    Raises:
        DerivationError: if a claim does not follow.

    Example:
        >>> derive()["cos_threshold"]
        -a*w1/(b*w2)
    """
    a, b, w1, w2, A, m, r = sympy.symbols("a b w1 w2 A m r", positive=True)
    c, q, s = sympy.symbols("c q s", real=True)
    product = w1 * a**2 + w2 * a * b * c
    threshold = sympy.solve(product, c)
    require(threshold == [-a * w1 / (b * w2)], "T2, threshold of task 1")
    require(sympy.diff(product, c).is_positive, "T2, harm lies below the threshold")

    slack = sympy.Symbol("slack", positive=True)  # r²A − q² > 0
    dual = q * s + r * sympy.sqrt(A) * sympy.sqrt(s**2 + m**2)
    stationary = -q * m / sympy.sqrt(slack)
    slope = sympy.diff(dual, s).subs(s, stationary).subs(slack, r**2 * A - q**2)
    numeric = {A: sympy.Rational(7, 3), m: sympy.Rational(2, 5), r: 3}
    for value in (sympy.Rational(-11, 4), sympy.Rational(1, 3), 2):
        require(sympy.simplify(slope.subs(numeric).subs(q, value)) == 0, "T2, stationary point of the dual")
    radicand = sympy.simplify((stationary**2 + m**2).subs(slack, r**2 * A - q**2) - m**2 * r**2 * A / (r**2 * A - q**2))
    require(radicand == 0, "T2, length at the stationary point")
    require(
        sympy.simplify(sympy.diff(dual, s, 2) * (s**2 + m**2) ** sympy.Rational(3, 2)).is_positive,
        "T2, convexity",
    )
    return {"cos_threshold": threshold[0], "shift": stationary}


@dataclass(frozen=True)
class Deviation:
    """Prediction for pairs of gradients; every field has the broadcast shape of the inputs, float64.

    Attributes:
        angle: ∠(g_J, u*) in radians; NaN where one of them vanishes.
        worst_joint: min_i cos(g_i, g_J), the worst-task improvement of linear scalarization.
        worst_rectified: min_i cos(g_i, u*).
        harms: (..., 2) bool, whether g_J harms task 1, task 2.
    """

    angle: Array
    worst_joint: Array
    worst_rectified: Array
    harms: NDArray[np.bool_]


def predict(ratio: ArrayLike, angle: ArrayLike, task_weights: ArrayLike, rho: float = 0.5) -> Deviation:
    """Closed forms for two tasks.

    Args:
        ratio: b/a = ‖g_2‖/‖g_1‖ > 0, any shape.
        angle: φ in radians, 0 ≤ φ ≤ π.
        task_weights: (2,) positive, or (..., 2) to broadcast with the others.
        rho: in [0, 1).

    Returns:
        :class:`Deviation`.

    Example:
        Unit gradients at 120°, equal weights: both directions are the bisector.

        >>> d = predict(1.0, np.deg2rad(120), [1, 1])
        >>> float(d.angle.round(12)), float(d.worst_rectified.round(12))
        (0.0, 0.5)

        Weights 1 : 4 harm the first task, since cos 120° = −0.5 < −1/4:

        >>> predict(1.0, np.deg2rad(120), [1, 4]).harms
        array([ True, False])
    """
    w = np.asarray(task_weights, np.float64)
    x, phi, w1, w2 = np.broadcast_arrays(
        np.asarray(ratio, np.float64), np.asarray(angle, np.float64), w[..., 0], w[..., 1]
    )
    cos, sin = np.cos(phi), np.sin(phi)
    alpha = dual_weight(x, phi, rho)
    first = np.stack([np.ones_like(x), np.zeros_like(x)], -1)
    second = np.stack([x * cos, x * sin], -1)
    mean = (first + second) / 2
    combined = alpha[..., None] * first + (1 - alpha)[..., None] * second
    with np.errstate(invalid="ignore", divide="ignore"):
        push = rho * _norm(mean) / _norm(combined)
        u = mean + push[..., None] * combined
        joint = w1[..., None] * first + w2[..., None] * second
        return Deviation(
            np.arctan2(np.abs(_cross(joint, u)), (joint * u).sum(-1)),
            np.minimum(_cosine(first, joint), _cosine(second, joint)),
            np.minimum(_cosine(first, u), _cosine(second, u)),
            np.stack([cos < -w1 / (w2 * x), cos < -w2 * x / w1], -1),
        )


def dual_weight(ratio: ArrayLike, angle: ArrayLike, rho: float = 0.5, *, clip: bool = True) -> Array:
    """α of task 1 in the dual's minimizer; without ``clip`` the interior formula alone (a control).

    Example:
        >>> float(dual_weight(1.0, 2.0))
        0.5
    """
    x, phi = np.asarray(ratio, np.float64), np.asarray(angle, np.float64)
    cos = np.cos(phi)
    A = np.maximum(1 + x**2 - 2 * x * cos, np.finfo(float).tiny)
    B = x * cos - x**2
    q = (1 - x**2) / 2
    r = rho * np.sqrt(1 + x**2 + 2 * x * cos) / 2
    m = x * np.abs(np.sin(phi)) / A
    slack = r**2 * A - q**2
    interior = -B / A - q * m / np.sqrt(np.where(slack > 0, slack, np.nan))
    if not clip:
        return np.asarray(interior)
    return np.where(slack > 0, np.clip(interior, 0, 1), (q < 0).astype(float))


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Thresholds and closed forms against the solver and against the cone solver of cvxpy."""
    derive()
    rng = np.random.default_rng(seed)
    n = 2000
    x, phi = np.exp(rng.uniform(-2, 2, n)), rng.uniform(0.02, np.pi - 0.02, n)
    scale = np.exp(rng.uniform(-6, 6, n))
    w = np.array([1.0, 4.0])
    frame = np.linalg.qr(rng.normal(size=(7, 2)))[0].T
    plane = np.stack([np.stack([np.ones(n), 0 * x], -1), np.stack([x * np.cos(phi), x * np.sin(phi)], -1)], 1)
    G = torch.from_numpy(scale[:, None, None] * plane @ frame)
    result = came_grad(G, torch.from_numpy(w), rho=0.5)
    joint, u = result.joint.numpy(), result.rectified.numpy()
    measured_angle = _angle(joint, u)
    g = G.numpy()
    products = np.einsum("nkd,nd->nk", g, joint)
    prediction = predict(x, phi, w)
    wrong = int((prediction.harms != (products < 0)).sum())
    swapped = int((predict(x, phi, w[::-1]).harms != (products < 0)).sum())
    angle_error = np.abs(prediction.angle - measured_angle)
    far = int(angle_error.argmax())
    worst_joint = _cosine(g, joint[:, None]).min(1)
    worst_u = _cosine(g, u[:, None]).min(1)
    improvement = np.abs(prediction.worst_rectified - worst_u)
    worst = int(improvement.argmax())

    few = np.arange(0, n, 40)
    by_cone = np.array([_angle(joint[i] / scale[i], optimizers.oracle.primal(g[i] / scale[i], 0.5)[0]) for i in few])
    cone_error = np.abs(prediction.angle[few] - by_cone)
    at = int(cone_error.argmax())
    unclipped = dual_weight(x, phi, clip=False)
    off = np.abs(unclipped - result.alpha[:, 0].numpy())
    harmed = (products < 0).any(1)
    return [
        Check("T2.a", "LS harms task i iff cos φ < −ω_i a_i/(ω_j a_j)", 0, wrong, wrong, 0, "count",
              f"signs of g_iᵀg_J on {n} random pairs, {harmed.mean():.0%} harmed"),
        Check("T2.b", "the same with the weights swapped", 0, swapped, swapped, 0, "count",
              f"{n} random pairs", control=True),
        Check("T2.c", "∠(g_J, u*) in closed form [rad]", float(prediction.angle[far]),
              float(measured_angle[far]), float(angle_error[far]), 1e-7, "absolute",
              f"optimizers.came_grad, {n} random pairs, worst"),
        Check("T2.d", "∠(g_J, u*) in closed form [rad]", float(prediction.angle[few][at]),
              float(by_cone[at]), float(cone_error[at]), 1e-5, "absolute",
              f"cvxpy cone program, {len(few)} pairs, worst"),
        Check("T2.e", "worst-task improvement of u*, min_i cos(g_i, u*)",
              float(prediction.worst_rectified[worst]), float(worst_u[worst]), float(improvement[worst]),
              1e-7, "absolute", f"optimizers.came_grad, {n} random pairs, worst"),
        Check("T2.f", "worst-task improvement of LS, min_i cos(g_i, g_J)",
              float(prediction.worst_joint[worst]), float(worst_joint[worst]),
              float(np.abs(prediction.worst_joint - worst_joint).max()), 1e-7, "absolute",
              f"gradients, {n} random pairs"),
        Check("T2.g", "α by the interior formula without clipping", float(unclipped[np.nanargmax(off)]),
              float(result.alpha[np.nanargmax(off), 0]), float(np.nanmax(off)), 1e-7, "absolute",
              f"optimizers.came_grad, {n} random pairs", control=True),
    ]  # fmt: skip


def _norm(x: Array) -> Array:
    return np.asarray(np.linalg.norm(x, axis=-1))


def _cosine(x: Array, y: Array) -> Array:
    return np.asarray((x * y).sum(-1) / (_norm(x) * _norm(y)))


def _cross(x: Array, y: Array) -> Array:
    return np.asarray(x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0])


def _angle(x: Array, y: Array) -> Array:
    """Accurate near 0 and π, unlike arccos of the cosine (Kahan)."""
    x, y = x / _norm(x)[..., None], y / _norm(y)[..., None]
    return np.asarray(2 * np.arctan2(_norm(x - y), _norm(x + y)))
