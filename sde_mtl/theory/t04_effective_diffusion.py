r"""T4, effective diffusion of CAME-Grad, and why energy injection alone does not restore diffusion (new).

By the delta method training with an aggregator F and gradient noise ε ~ N(0, Σ) follows, to first order in the noise,

.. math:: dΘ = -\bigl[F(g) + ½\,D²F:Σ\bigr]dt + \sqrt{η\,JΣJ^⊤}\,dW, \qquad J = ∂F/∂\mathrm{vec}(G).

J is known in closed form on each branch of stage 1 (:mod:`sde_mtl.theory.sensitivity`). F is homogeneous of degree one
in κ, so the diffusion of CAME-Grad at κ is κ² tr(JΣJᵀ at κ = 1), and it reaches that of linear scalarization at the
*restoration threshold*

.. math:: κ^* = \sqrt{\mathrm{tr}\,Σ_{LS} / \mathrm{tr}\,(JΣJ^⊤)|_{κ=1}}.

κ* > 1 means that CAME-Grad's direction removes diffusion that κ has to pay back. Since κ only multiplies the learning
rate (T8), "restored" diffusion is that of linear scalarization at the learning rate κη.

How much is removed depends on the dimension d. Noise orthogonal to all gradients changes the Gramian only to second
order, and so leaves the coefficients c of F = Gᵀc alone: of d dimensions K at most feel the direction, the others carry
Σ_ij c_ic_jε_iᵀε_j. With isotropic noise of traces T_ij = tr Σ_ij therefore

.. math:: \frac{\mathrm{tr}\,JΣJ^⊤}{\mathrm{tr}\,Σ_{LS}} = \frac{c^⊤Tc}{ω^⊤Tω} + O(K/d).

At κ = 1, ν = 0.2, ρ = ½, equal weights and lengths, independent noise (there c = ω, and the limit is 1): 0.627 at 120°
and 0.543 at 150° for d = 2, but 0.925 and 0.909 for d = 10, and 0.999 for d = 1000. Networks are of the last kind: what
is left of T4 there is the change of coefficients.

In the plane the paper's κ = 1.5 is above κ* nearly everywhere (of 2,000 random pairs with independent noise 2 were not
restored), but not everywhere: b/a = 0.32 at φ = 174.2° with ω = (0.211, 0.789) keeps 78 % of linear scalarization's
diffusion.

For K = 2 the interior branch of stage 1 is simpler than it looks (new): there g_1ᵀu* = g_2ᵀu*, so u* is orthogonal to
δ = g_1 − g_2 and lies in the plane of the two gradients,

.. math:: \hat u = p/‖p‖, \qquad p = μ - \frac{δ^⊤μ}{δ^⊤δ}\,δ,

the point of the line through g_1 and g_2 nearest to 0. Stage 2 forgets ‖u*‖, hence on this branch *CAME-Grad does
not depend on ρ*: it is the direction of MGDA (where p lies between g_1 and g_2) at the length of κ‖g_J‖, fused with
g_J. ρ only decides where the branch ends. For K > 2 the same holds wherever the dual weighs every task, with the
affine hull of the gradients in place of the line.

What it does not say: anything at kinks of F (a change of the dual's support, μ = 0, g_α = 0), where J jumps; nor beyond
noise small against the distance to the nearest kink. :func:`sde_mtl.theory.kinks.breakdown` measures where that is.
"""

from collections.abc import Sequence

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray

from optimizers import came_grad, came_grad_coefficients, gramian
from sde_mtl.problems import AdditiveNoise
from sde_mtl.random import normals
from sde_mtl.theory.check import Check, in_standard_errors, require
from sde_mtl.theory.examples import pair
from sde_mtl.theory.jacobian import automatic_differences, finite_differences
from sde_mtl.theory.kinks import breakdown, kink_distance, measured_trace
from sde_mtl.theory.sensitivity import linearize

Array = NDArray[np.float64]
STANDARD_ERRORS = 5.0
LENGTH = 1e-4
"""Of the noise in T4's Monte Carlo in many dimensions: √2 times it a task, whose gradient has length 1."""
UNRESTORED = (0.32, 174.2, 0.211)
"""Norm ratio, angle [degrees] and ω_1 at which κ = 1.5 does not restore diffusion; found by random search."""


def derive() -> dict[str, sympy.Expr]:
    """The clipped branch for K = 2 in closed form, and the homogeneity that makes κ* a square root.

    Returns:
        "interior": ∂p/∂g_1 on the interior branch, a 2×2 matrix in g_1 and g_2 = (x, y);
        "clipped": entries of ∂u*/∂g_1 for α = 1 at g_1 = (a, 0), μ = (m_1, m_2), as a matrix.

    Raises:
        DerivationError: if the derivative of u* = μ + ρ‖μ‖ĝ_1 is not (I + ρ ĝ_1μ̂ᵀ)/2 + ρ‖μ‖(I − ĝ_1ĝ_1ᵀ)/‖g_1‖.

    Example:
        >>> derive()["clipped"].shape
        (2, 2)
    """
    a, x, y, rho = sympy.symbols("a x y rho", positive=True)
    g = sympy.Matrix(sympy.symbols("g0 g1", real=True))
    other = sympy.Matrix([x, y])
    mu = (g + other) / 2
    length = sympy.sqrt(mu.dot(mu))
    u = mu + rho * length * g / sympy.sqrt(g.dot(g))
    jacobian = u.jacobian(g)
    at = {g[0]: a, g[1]: 0}
    unit = sympy.Matrix([1, 0])
    m = mu.subs(at)
    size = sympy.sqrt(m.dot(m))
    claimed = (sympy.eye(2) + rho * unit * m.T / size) / 2 + rho * size * (sympy.eye(2) - unit * unit.T) / a
    difference = (jacobian.subs(at) - claimed).applyfunc(sympy.simplify)
    require(difference == sympy.zeros(2, 2), "T4, derivative of u* on the clipped branch")
    return {"clipped": claimed.applyfunc(sympy.simplify), "interior": _derive_interior()}


def _derive_interior() -> sympy.Matrix:
    """∂p/∂g_1 on the interior branch, after checking that the printed stage 1 gives u* ∥ p for any ρ."""
    x, y = sympy.symbols("x y", real=True)
    g = sympy.Matrix(sympy.symbols("g0 g1", real=True))
    other = sympy.Matrix([x, y])
    mu, delta = (g + other) / 2, g - other
    A, q = delta.dot(delta), delta.dot(mu)
    p = mu - q / A * delta
    # df/dα = δᵀμ + ρ‖μ‖δᵀg_α/‖g_α‖ = δᵀu* = 0 at an interior α, and g_α = p − τδ for some τ.
    tau = sympy.Symbol("tau", real=True)
    combined = p - tau * delta
    push = sympy.Symbol("push", real=True)  # ρ‖μ‖/‖g_α‖
    u = mu + push * combined
    stationary = sympy.solve(sympy.expand(u.dot(delta)), push)[0]
    along = sympy.simplify(u.subs(push, stationary)[0] * p[1] - u.subs(push, stationary)[1] * p[0])
    require(along == 0, "T4, u* is parallel to p wherever δᵀu* = 0")
    unit = sympy.Matrix([g, other])
    jacobian = p.jacobian(g)
    half = sympy.eye(2) / 2
    claimed = half - delta * (mu.T + delta.T / 2) / A + 2 * q / A**2 * delta * delta.T - q / A * sympy.eye(2)
    at = dict(zip(unit[:2], (sympy.Rational(3, 2), sympy.Rational(-1, 3)), strict=True))
    at |= {x: sympy.Rational(-4, 5), y: sympy.Rational(7, 3)}
    require((jacobian - claimed).subs(at) == sympy.zeros(2, 2), "T4, derivative of p at a rational point")
    return claimed


def interior(
    gradients: torch.Tensor, task_weights: torch.Tensor, *, kappa: float = 1.5, nu: float = 0.2
) -> torch.Tensor:
    """CAME-Grad where every α_i > 0, from the point p of the affine hull of the gradients nearest to 0; without ρ.

    Args:
        gradients: (..., K, d) float64, linearly independent.
        task_weights: (K,) or (..., K).
        kappa, nu: of CAME-Grad.

    Example:
        >>> G = pair(1.0, np.deg2rad(150))
        >>> w = torch.tensor([0.3, 0.7]).double()
        >>> torch.allclose(interior(G, w), came_grad(G, w, rho=0.5).update)
        True
        >>> torch.allclose(interior(G, w), came_grad(G, w, rho=0.9).update)
        True
    """
    M = gradients @ gradients.mT
    share = torch.linalg.solve(M, torch.ones(M.shape[:-1], dtype=M.dtype))
    p = torch.einsum("...k,...kd->...d", share / share.sum(-1, keepdim=True), gradients)
    joint = torch.einsum("...k,...kd->...d", task_weights, gradients)
    return kappa * ((1 - nu) * joint.norm(dim=-1, keepdim=True) * p / p.norm(dim=-1, keepdim=True) + nu * joint)


def diffusion_ratio(
    ratio: float,
    angle: float,
    task_weights: ArrayLike = (0.5, 0.5),
    *,
    rho: float = 0.5,
    nu: float = 0.2,
    kappa: float = 1.0,
    correlation: float = 0.0,
    dimension: int = 2,
) -> float:
    """tr JΣJᵀ / tr Σ_LS for two tasks with isotropic noise of equal variance.

    Args:
        ratio, angle: b/a and φ [radians] of the gradients.
        task_weights: (2,).
        rho, nu, kappa: of CAME-Grad.
        correlation: of the noise across the tasks.
        dimension: d ≥ 2.

    Raises:
        ValueError: where F has no derivative.

    Example:
        >>> for d in (2, 10):
        ...     print(d, [round(diffusion_ratio(1.0, np.deg2rad(phi), dimension=d), 3) for phi in (120, 150)])
        2 [0.627, 0.543]
        10 [0.925, 0.909]
    """
    w = torch.as_tensor(np.asarray(task_weights), dtype=torch.float64)
    across = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    J = linearize(pair(ratio, angle, dimension), w, rho=rho, kappa=kappa, nu=nu).jacobian
    diffusion = torch.einsum("aib,ij,ajb->", J, across, J)
    return float(diffusion / (dimension * (w @ across @ w)))


def coefficient_ratio(
    ratio: float, angle: float, task_weights: ArrayLike = (0.5, 0.5), *, correlation: float = 0.0
) -> float:
    """cᵀTc/ωᵀTω at κ = 1, what :func:`diffusion_ratio` tends to in many dimensions.

    Args:
        ratio, angle, task_weights, correlation: as there.

    Example:
        >>> round(coefficient_ratio(1.0, np.deg2rad(120)), 12)
        1.0
    """
    w = torch.as_tensor(np.asarray(task_weights), dtype=torch.float64)
    c = came_grad_coefficients(gramian(pair(ratio, angle)), w, kappa=1.0)
    across = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    return float((c @ across @ c) / (w @ across @ w))


def restoration_threshold(
    ratio: float, angle: float, task_weights: ArrayLike = (0.5, 0.5), *, rho: float = 0.5, nu: float = 0.2,
    correlation: float = 0.0,
) -> float:  # fmt: skip
    """κ*; below 1 CAME-Grad diffuses more than linear scalarization even without enhancement.

    Example:
        >>> round(restoration_threshold(1.0, np.deg2rad(120)), 2)
        1.26
    """
    return float(diffusion_ratio(ratio, angle, task_weights, rho=rho, nu=nu, correlation=correlation) ** -0.5)


def threshold_map(
    ratios: Sequence[float], angles: Sequence[float], task_weights: ArrayLike = (0.5, 0.5), *, rho: float = 0.5,
    nu: float = 0.2, correlation: float = 0.0,
) -> Array:  # fmt: skip
    """κ* over norm ratios and angles [radians], (len(ratios), len(angles)); NaN where F has no derivative."""
    out = np.full((len(ratios), len(angles)), np.nan)
    for i, ratio in enumerate(ratios):
        for j, angle in enumerate(angles):
            try:
                out[i, j] = restoration_threshold(ratio, angle, task_weights, rho=rho, nu=nu, correlation=correlation)
            except ValueError:
                continue
    return out


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """The Jacobian by three routes, the diffusion by Monte Carlo, restored or not, and controls (book/energy.md)."""
    derive()
    rng = np.random.default_rng(seed)
    rows = []
    for name, tasks in (("a", 2), ("b", 5)):
        error, branches = finite_differences(rng, tasks)
        rows.append(
            Check(f"T4.{name}", f"Jacobian of F against central differences, K = {tasks}", 0, error, error, 1e-6,
                  "relative", f"60 random problems, supports of {sorted(branches)} tasks")
        )  # fmt: skip
    for name, tasks in (("j", 2), ("l", 3)):
        away, branch = _interior_error(rng, tasks)
        rows.append(Check(f"T4.{name}", f"K = {tasks}, all α_i > 0: F from p alone, whatever ρ is", 0, away, away, 1e-8,
                          "relative", f"optimizers.came_grad at ρ = 0.1 … 0.9, {branch} of 6,000"))  # fmt: skip
    clipped = _interior_error(rng, 2, interior_only=False)[0]
    rows.append(Check("T4.k", "the same on the clipped branch too", 0, clipped, clipped, 1e-8, "relative",
                      "6,000 random pairs", control=True))  # fmt: skip
    samples = 16 * paths
    for name, share, control in (("m", 1 / 3, False), ("n", 2.0, True)):
        ratios = []
        for phi in (60.0, 120.0, 170.0):
            scale = share * kink_distance(pair(1.0, np.deg2rad(phi)))
            (measured,), _, predicted = breakdown(1.0, np.deg2rad(phi), [scale], samples=samples, seed=seed)
            ratios.append(measured / predicted)
        far = max(ratios, key=lambda r: abs(r - 1))
        rows.append(
            Check(f"T4.{name}", f"JΣJᵀ at noise of {share:.2g} kink distances", 1.0, far, abs(far - 1), 0.05,
                  "relative", f"worst of φ = 60°, 120°, 170°; {samples} updates", control=control)
        )  # fmt: skip
    automatic = automatic_differences(rng)
    rows.append(Check("T4.c", "Jacobian of F against autograd of the closed form, K = 2", 0, automatic, automatic,
                      1e-9, "relative", "torch.autograd, 40 random pairs, both branches"))  # fmt: skip
    rows += _check_dimensions(seed, paths)
    threshold = restoration_threshold(1.0, np.deg2rad(120))
    restored = diffusion_ratio(1.0, np.deg2rad(120), kappa=threshold)
    rows.append(Check("T4.f", "at κ* the diffusion is that of LS", 1.0, restored, abs(restored - 1), 1e-12,
                      "absolute", "delta method"))  # fmt: skip
    return rows + _check_unrestored(seed, samples)


def _check_dimensions(seed: int, paths: int) -> list[Check]:
    """The ratio at d = 2, 10 and 1000 by linearization and by Monte Carlo, its limit, and two controls."""
    rows = []
    measured: dict[tuple[int, int], tuple[float, float]] = {}
    for letter, (d, phi) in zip("depqrs", ((d, phi) for d in (2, 10, 1000) for phi in (120, 150)), strict=True):
        samples = max(500, 32 * paths // d)
        measured[d, phi] = _measured_ratio(phi, d, samples=samples, seed=seed)
        rows.append(in_standard_errors(
            f"T4.{letter}", f"tr JΣJᵀ/tr Σ_LS, d = {d}, φ = {phi}°, κ = 1, isotropic independent noise",
            diffusion_ratio(1.0, np.deg2rad(phi), dimension=d), *measured[d, phi],
            f"{samples} updates F(g + ε) over LS on the same noise"))  # fmt: skip
    uneven = (0.3, 0.7)
    many = diffusion_ratio(1.6, np.deg2rad(120), uneven, dimension=1000)
    limit = coefficient_ratio(1.6, np.deg2rad(120), uneven)
    rows.append(Check("T4.t", "tr JΣJᵀ/tr Σ_LS → cᵀTc/ωᵀTω: d = 1000, b/a = 1.6, ω = (.3, .7)", limit, many,
                      abs(many / limit - 1), 2 / 1000, "relative", "linearization; O(K/d)"))  # fmt: skip
    rows.append(in_standard_errors("T4.h", "CAME-Grad at κ = 1 diffuses like LS in the plane", 1.0, *measured[2, 120],
                                   "the updates of T4.d", control=True))  # fmt: skip
    rows.append(in_standard_errors("T4.u", "the plane's ratio at d = 1000", diffusion_ratio(1.0, np.deg2rad(120)),
                                   *measured[1000, 120], "the updates of T4.r", control=True))  # fmt: skip
    return rows


def _measured_ratio(degrees: float, dimension: int, *, samples: int, seed: int) -> tuple[float, float]:
    """tr Cov F(g + ε)/tr Cov(Σω_iε_i) of the same noise and its standard error; κ = 1, ω = (½, ½), equal lengths."""
    G, w = pair(1.0, np.deg2rad(degrees), dimension), torch.tensor([0.5, 0.5]).double()
    epsilon = LENGTH * (2 / dimension) ** 0.5 * normals(torch.arange(samples), 0, 2 * dimension, seed=seed)
    noisy = G + epsilon.reshape(samples, 2, dimension)
    update, joint = came_grad(noisy, w, kappa=1.0).update, torch.einsum("k,nkd->nd", w, noisy)
    own, linear = ((v - v.mean(0)).square().sum(-1) for v in (update, joint))
    ratio = float(own.mean() / linear.mean())
    return ratio, float((own - ratio * linear).std() / linear.mean() / samples**0.5)


def _check_unrestored(seed: int, samples: int) -> list[Check]:
    """The pair whose diffusion κ = 1.5 does not restore, and the claim that it does as control."""
    ratio, degrees, share = UNRESTORED
    G, w = pair(ratio, np.deg2rad(degrees)), torch.tensor([share, 1 - share]).double()
    noise = AdditiveNoise.correlated([1.0, 1.0], dimension=2)
    total = float(noise.joint_covariance(w).trace())
    predicted = diffusion_ratio(ratio, np.deg2rad(degrees), w, kappa=1.5)
    measured, error = (
        value / total for value in measured_trace(G, w, noise, 1e-4, samples=samples, seed=seed, kappa=1.5)
    )
    route = f"{samples} updates F(g + ε), noise 1e-4, independent"
    return [
        in_standard_errors("T4.g", "d = 2: κ = 1.5 leaves diffusion below LS: b/a = 0.32, φ = 174.2°, ω_1 = 0.211",
                           predicted, measured, error, route),
        Check("T4.i", "κ = 1.5 restores diffusion there too: ratio ≥ 1", 1.0, measured,
              max(0.0, (1 - measured) / error), STANDARD_ERRORS, "SE", route, control=True, standard_error=error),
    ]  # fmt: skip


def check_full(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """κ* at random settings against Monte Carlo: 60 points over (φ, b/a, ω, ρ, ν, correlation)."""
    rng = np.random.default_rng(seed)
    worst, tried = Check("T4.full", "", 0.0, 0.0, -1.0, 0.0, "SE", ""), 0
    while tried < 60:
        ratio, angle = float(np.exp(rng.uniform(-1, 1))), float(rng.uniform(0.3, 2.9))
        share, rho, nu = rng.uniform(0.2, 0.8), float(rng.uniform(0.1, 0.9)), float(rng.uniform(0, 0.9))
        correlation = float(rng.uniform(-0.9, 0.9))
        G, w = pair(ratio, angle), torch.tensor([share, 1 - share]).double()
        if linearize(G, w, rho=rho, nu=nu).margin < 0.02:
            continue
        tried += 1
        noise = AdditiveNoise.correlated([1.0, 1.0], correlation=correlation, dimension=2)
        predicted = diffusion_ratio(ratio, angle, w, rho=rho, nu=nu, correlation=correlation)
        total = float(noise.joint_covariance(w).trace())
        measured, error = measured_trace(G, w, noise, 1e-4, samples=4 * paths, seed=seed, rho=rho, nu=nu)
        row = in_standard_errors(
            "T4.full", "tr JΣJᵀ/tr Σ_LS = 1/κ*² at 60 random settings in the plane, worst", predicted,
            measured / total, error / total, f"{4 * paths} updates each, noise 1e-4")  # fmt: skip
        worst = max(worst, row, key=lambda r: r.error)
    return [worst]


def _interior_error(rng: np.random.Generator, tasks: int, *, interior_only: bool = True) -> tuple[float, int]:
    """Largest relative distance between F and its closed form, and how many pairs were interior."""
    worst, count = 0.0, 0
    for rho in (0.1, 0.5, 0.9):
        G = torch.from_numpy(rng.normal(size=(2000, tasks, 6)) * np.exp(rng.uniform(-0.5, 0.5, size=(2000, tasks, 1))))
        w = torch.from_numpy(rng.uniform(0.3, 2, size=(2000, tasks)))
        r = came_grad(G, w, rho=rho)
        inside = (r.alpha > 1e-9).all(-1)
        count += int(inside.sum())
        chosen = inside if interior_only else ~inside
        distance = (interior(G, w) - r.update)[chosen].norm(dim=-1) / r.update[chosen].norm(dim=-1)
        worst = max(worst, float(distance.max()))
    return worst, count
