r"""Near a point with g_J = 0 and μ ≠ 0, below ν = ½ and without noise: which starts come, and which leave (T6).

There û is smooth, so to first order in δ = θ − θ_J gradient flow moves y = g_J = Hδ, H = Σω_iA_i, by

.. math:: \dot y = -κH\,[(1-ν)‖y‖\,\hat u + νy],

homogeneous of degree one. It has rays y = re with ‖e‖ = 1 of two kinds:

.. math:: \dot r = -κλr,\; e = (λ-νH)^{-1}(1-ν)H\hat u, \qquad \dot r = κσr,\; e = -(σ+νH)^{-1}(1-ν)H\hat u .

(1−ν)‖(σ+νH)⁻¹Hû‖ falls from (1−ν)/ν at σ = 0 to 0, so that σ > 0 exists, and is unique, iff ν < ½: *y grows along its
ray at the rate κσ*, and the point is never stable. With H = hI, λ = h and σ = h(1−2ν).

Nor need it be avoided. Perturbations z of the incoming ray obey ż = −κBz with B = (1−ν)Hûeᵀ + νH, where Be = λe; the
ray attracts an open set of starts iff the other eigenvalues of B have real parts > λ. For û along an eigenvector of H
with curvature h they are νh_j: every other direction must be more than 1/ν times as stiff. In d = 1 there is no other
direction, and one side of the point always converges to it. So "almost every start ends at the mean's minimizer" can
be true for well-conditioned H alone. A floating-point ‖g_J‖ from a Gramian has an error of 1e-8 of the gradients and
pushes the iterates over to the ray that leaves: what an optimizer shows is a plateau of about
log(1e8)·(1/λ + 1/σ)/(ηκ) steps.
"""

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from torch import Tensor

from optimizers import came_grad
from sde_mtl.problems import Quadratic
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.examples import KAPPA, WEIGHTS, example

Array = NDArray[np.float64]
ARRIVED = 1e-9
"""‖g_J‖/‖μ‖ that counts as arrived at the point."""


def derive() -> sympy.Expr:
    """σ of isotropic H = hI, from the equation of the ray that leaves.

    Raises:
        DerivationError: if the two rays do not solve the flow, or d = 1 does not move by −κg_J above the point.

    Example:
        >>> derive()
        -h*(2*nu - 1)
    """
    h, nu, sigma, rate = sympy.symbols("h nu sigma lambda", positive=True)
    leaving = -(1 - nu) * h / (sigma + nu * h)  # e in units of û
    (found,) = sympy.solve(sympy.Eq(-leaving, 1), sigma)
    require(sympy.simplify(found - h * (1 - 2 * nu)) == 0, "T6, the rate of leaving for H = hI")
    require(sympy.simplify(-h * (1 - nu + nu * leaving) - found * leaving).subs(sigma, found).equals(0),
            "T6, the ray that leaves")  # fmt: skip
    coming = (1 - nu) * h / (rate - nu * h)
    (speed,) = sympy.solve(sympy.Eq(coming, 1), rate)
    require(sympy.simplify(speed - h) == 0, "T6, the rate of coming for H = hI")
    return sympy.factor(found)


def leaving(hessian: ArrayLike, direction: ArrayLike, nu: float) -> tuple[float, Array]:
    """σ, the rate over κ at which y grows, and the ray e along which it does.

    Args:
        hessian: H, (d, d) symmetric positive definite.
        direction: û at the point, (d,).
        nu: 0 < ν < ½.

    Raises:
        ValueError: for ν ≥ ½, where nothing leaves.

    Example:
        >>> round(leaving(np.eye(2) * 5, [0.0, 1.0], 0.2)[0], 9)
        3.0
    """
    if not 0 < nu < 0.5:
        raise ValueError(f"nu = {nu} must be in (0, 1/2)")
    H, u = np.asarray(hessian, np.float64), np.asarray(direction, np.float64)

    def ray(rate: float) -> Array:
        return np.asarray(-np.linalg.solve(rate * np.eye(len(H)) + nu * H, (1 - nu) * H @ u))

    largest = float(np.linalg.eigvalsh(H)[-1])
    rate = float(brentq(lambda s: np.linalg.norm(ray(s)) - 1, 0.0, largest, xtol=1e-14))
    return rate, ray(rate)


def flat_pair(condition: float) -> Quadratic:
    """Two tasks with curvatures (condition, 1), minimizers (0, 0) and (0, 1): they differ along the flat direction.

    Args:
        condition: curvature of the other direction.

    Example:
        >>> flat_pair(10.0).minimizer(WEIGHTS)
        tensor([0.0000, 0.8000], dtype=torch.float64)
    """
    A = [[condition, 0.0], [0.0, 1.0]]
    return Quadratic([A, A], [[0.0, 0.0], [0.0, 1.0]])


def follow(
    problem: Quadratic, start: Tensor, learning_rate: float, record: tuple[int, ...], *, nu: float = 0.2,
    by_gramian: bool = False,
) -> Array:  # fmt: skip
    """‖g_J‖/‖μ‖ at the recorded steps of noiseless CAME-Grad, (len(record), n).

    Args:
        problem: two tasks, weighted 1 : 4.
        start: (n, d).
        learning_rate: η.
        record: steps in ascending order.
        nu: of CAME-Grad.
        by_gramian: the update as it is, whose ‖g_J‖ comes from the Gramian, rather than stage 2 on the vectors.

    Example:
        Above both minimizers in d = 1 the update is κg_J, and ends at the weighted one:

        >>> line = Quadratic([[[1.0]], [[1.0]]], [[0.0], [1.0]])
        >>> bool(follow(line, torch.tensor([[2.0]]).double(), 0.05, (200,)) < 1e-9)
        True
    """
    theta, out = start, []
    for step in range(record[-1] + 1):
        r = came_grad(problem.gradients(theta), WEIGHTS, kappa=KAPPA, nu=nu)
        size = r.joint.norm(dim=-1, keepdim=True)
        if step in record:
            out.append((size[:, 0] / r.mean.norm(dim=-1)).numpy())
        u = r.rectified / r.rectified.norm(dim=-1, keepdim=True)
        update = r.update if by_gramian else KAPPA * ((1 - nu) * size * u + nu * r.joint)
        theta = theta - learning_rate * update
    return np.array(out)


def growth(learning_rate: float = 3e-4, *, nu: float = 0.2) -> tuple[float, float]:
    """Rate over κ at which g_J grows near the weighted minimizer of T6's pair: predicted σ, and simulated.

    Args:
        learning_rate: η, whose share O(ηκσ) the simulated rate misses.
        nu: of CAME-Grad.
    """
    problem = example()
    point = problem.minimizer(WEIGHTS)
    u = came_grad(problem.gradients(point)[None], WEIGHTS, nu=nu).rectified[0]
    rate, ray = leaving(problem.hessian(WEIGHTS).numpy(), (u / u.norm()).numpy(), nu)
    away = torch.linalg.solve(problem.hessian(WEIGHTS), torch.from_numpy(ray))
    early, late = 100, 400
    sizes = follow(problem, (point + 1e-6 * away)[None], learning_rate, (early, late), nu=nu)[:, 0]
    return rate, float(np.log(sizes[1] / sizes[0]) / ((late - early) * learning_rate * KAPPA))


def check(seed: int = 0) -> list[Check]:
    """One side converges, the other leaves at the predicted rate; 200 starts each at condition numbers 10 and 2."""
    derive()
    line = Quadratic([[[1.0]], [[1.0]]], [[0.0], [1.0]])
    above, below = follow(line, torch.tensor([[2.0], [0.79]]).double(), 0.01, (1000,))[0]
    predicted, found = growth()
    rng = np.random.default_rng(seed)
    starts = torch.from_numpy(np.stack([rng.normal(size=200), rng.uniform(1.5, 3.5, size=200)], 1))
    stiff = follow(flat_pair(10.0), starts, 0.4 / 75, (800,))[-1]
    round_ = follow(flat_pair(2.0), starts, 0.4 / 15, (600,))[-1]
    plateau = follow(flat_pair(10.0), starts, 0.2 / 75, (2000, 3300), by_gramian=True) < 1e-3
    come, stay = int((stiff < ARRIVED).sum()), int((round_ < ARRIVED).sum())
    flat = "curvatures 10 and 1, minimizers apart along the flat direction, ν = 0.2"
    return [
        Check("T6.o", "d = 1, L = ½θ², ½(θ−1)², ω = (1, 4): from 2 to the weighted minimizer, ‖g_J‖/‖μ‖", 0.0,
              float(above), float(above), 1e-12, "absolute", "1,000 noiseless steps, η = 0.01", scale=1.0),
        Check("T6.p", "the same from 0.79, just below it", 0.0, float(below), float(below), 1e-12, "absolute",
              "1,000 noiseless steps, η = 0.01", control=True),
        Check("T6.q", "g_J = 0 is left at the rate κσ, T6's pair", predicted, found, abs(found / predicted - 1), 2e-3,
              "relative", "growth of ‖g_J‖ over 300 steps, η = 3e-4"),
        Check("T6.r", f"d = 2, {flat}: all of 200 starts at the weighted minimizer", 200, come, 200 - come, 0,
              "count", "800 noiseless steps, ‖g_J‖ < 1e-9 ‖μ‖"),
        Check("T6.s", "the same for curvatures 2 and 1, below 1/ν", 200, stay, 200 - stay, 0, "count",
              "600 noiseless steps", control=True),
        Check("T6.t", f"{flat}, ‖g_J‖ from the Gramian: a plateau at step 2,000, left at 3,300", 200,
              int((plateau[0] & ~plateau[1]).sum()), 200 - int((plateau[0] & ~plateau[1]).sum()), 0, "count",
              "200 starts, ‖g_J‖ < 1e-3 ‖μ‖ at the first, not at the second"),
    ]  # fmt: skip
