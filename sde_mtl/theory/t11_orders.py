r"""T11, discretisation: how fast Euler–Maruyama converges, and how close SGD is to its SDE.

For additive noise Euler–Maruyama has strong order 1 (it coincides with Milstein's scheme), for multiplicative noise ½;
its weak order is 1 (Kloeden and Platen 1992). SGD at learning rate η is within weak error O(η) of its SDE at a fixed
time.

Strong orders are slopes of log error against log dt over paths driven by the same Brownian motion, fine increments
summed; the exact solution is known for the Ornstein–Uhlenbeck process and for geometric Brownian motion.

What it does not say: constants; finite-sum noise is not additive; and a fixed time is not an exit time, which depends
on the noise's law exponentially in 1/η (T10). For CAME-Grad the SDE with weak error O(η) has the drift −E F(g+ε) and
the diffusion η Cov F(g+ε), not F and JΣJᵀ, since F has kinks (T12, which checks the drift).
"""

import numpy as np
import sympy
import torch
from numpy.typing import NDArray

from sde_mtl.random import normals
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.t03_diffusion_decay import OrnsteinUhlenbeck

Array = NDArray[np.float64]
LEVELS = (6, 7, 8, 9, 10)
FINEST = 12


def derive() -> dict[str, sympy.Expr]:
    """Leading weak errors at time 1 in closed form for dX = −hX dt + √(ηv) dW.

    Returns:
        "euler": coefficient of dt in the second moment's error of the stationary law;
        "sgd": the same for SGD, coefficient of η relative to the SDE's variance.

    Raises:
        DerivationError: if the order is not 1.

    Example:
        >>> derive()["sgd"]
        h/2
    """
    h, dt, eta, v = sympy.symbols("h dt eta v", positive=True)
    k = sympy.Symbol("k", positive=True)
    euler = sympy.solve(k - (1 - dt * h) ** 2 * k - dt * eta * v, k)[0]
    exact = eta * v / (2 * h)
    relative = sympy.series(sympy.simplify(euler / exact - 1), dt, 0, 2).removeO()
    require(relative.coeff(dt, 0) == 0, "T11, Euler–Maruyama is consistent")
    return {"euler": relative.coeff(dt, 1), "sgd": relative.coeff(dt, 1)}


def strong_gaps(kind: str, *, paths: int, seed: int) -> Array:
    """|X_dt(1) − X(1)| at dt = 2^−level of every path, on shared Brownian paths, (len(LEVELS), paths).

    Args:
        kind: "additive" for dX = −2X dt + 0.8 dW from 1, "multiplicative" for dX = −X dt + 0.8 X dW from 1.
        paths, seed: of the Brownian motion.
    """
    steps = 2**FINEST
    fine = torch.stack([normals(torch.arange(paths), s, 1, seed=seed)[:, 0] for s in range(steps)]) / steps**0.5
    if kind == "additive":
        reference = torch.ones(paths, dtype=torch.float64)
        decay = np.exp(-2 / steps)
        spread = 0.8 * np.sqrt((1 - decay**2) / 4 * steps)
        for increment in fine:  # exact in law on the fine grid, driven by the same increments
            reference = decay * reference + spread * increment
    else:
        reference = torch.exp(-1 - 0.32 + 0.8 * fine.sum(0))
    gaps = []
    for level in LEVELS:
        coarse = fine.reshape(2**level, -1, paths).sum(1)
        dt = 2.0**-level
        x = torch.ones(paths, dtype=torch.float64)
        for increment in coarse:
            x = x - dt * 2 * x + 0.8 * increment if kind == "additive" else x - dt * x + 0.8 * x * increment
        gaps.append((x - reference).abs())
    return torch.stack(gaps).numpy()


def strong_errors(kind: str, *, paths: int, seed: int) -> tuple[Array, Array]:
    """Means of :func:`strong_gaps` and their standard errors, both (len(LEVELS),).

    Args:
        kind, paths, seed: as there.
    """
    gaps = strong_gaps(kind, paths=paths, seed=seed)
    return gaps.mean(1), gaps.std(1, ddof=1) / paths**0.5


def strong_order(gaps: Array) -> tuple[float, float]:
    """Least-squares slope of log mean gap over log dt, and its standard error on paths shared by all levels.

    Args:
        gaps: (len(LEVELS), paths).

    Example:
        >>> gaps = 2.0 ** -np.array(LEVELS)[:, None] * np.array([1.0, 2.0])
        >>> [round(x, 9) for x in strong_order(gaps)]
        [1.0, 0.0]
    """
    step = -np.log(2.0) * np.array(LEVELS)
    share = (step - step.mean()) / ((step - step.mean()) ** 2).sum()
    mean = gaps.mean(1)
    moved = share @ (gaps / mean[:, None])  # what each path moves the slope by, times their number
    return float(share @ np.log(mean)), float(moved.std(ddof=1) / gaps.shape[1] ** 0.5)


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Strong slopes on shared paths, weak slopes from exact moments, and swapped orders as controls."""
    derive()
    rows = []
    fits = {}
    for name, kind, order in (("a", "additive", 1.0), ("b", "multiplicative", 0.5)):
        fits[kind] = value, error = strong_order(strong_gaps(kind, paths=4000, seed=seed))
        rows.append(
            Check(f"T11.{name}", f"strong order of Euler–Maruyama, {kind} noise", order, value, abs(value - order),
                  0.025, "absolute", f"4,000 shared Brownian paths, dt = 2^−6 … 2^−10, slope ± {error:.4f} (SE)")
        )  # fmt: skip
    etas = np.array([0.01, 0.005, 0.0025, 0.00125])
    H, sigma = np.array([[1.0, 0.3], [0.3, 2.0]]), np.array([[1.0, -0.2], [-0.2, 0.5]])

    def weak(eta: float) -> float:
        """Relative error of E|θ|² at time 1, exact laws on both sides."""
        law = OrnsteinUhlenbeck(H, np.zeros(2), sigma, eta)
        n = round(1 / eta)
        start = np.array([1.0, -1.0])
        loop = (law.discrete_mean(n, start) ** 2).sum() + np.trace(law.discrete_covariance(n))
        sde = (law.mean(1.0, start) ** 2).sum() + np.trace(law.covariance(1.0))
        return float(abs(loop - sde))

    errors = np.array([weak(eta) for eta in etas])
    order = float(np.polyfit(np.log(etas), np.log(errors), 1)[0])
    rows.append(Check("T11.c", "weak error of SGD against its SDE is O(η): order", 1.0, order, abs(order - 1), 0.02,
                      "absolute", "E|θ|² at t = 1 from exact laws, η = 0.01 … 0.00125"))  # fmt: skip
    value, _ = fits["multiplicative"]
    rows.append(Check("T11.d", "strong order 1 with multiplicative noise", 1.0, value, abs(value - 1), 0.025,
                      "absolute", "the same paths", control=True))  # fmt: skip
    return rows
