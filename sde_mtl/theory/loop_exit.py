r"""How long the loop itself stays in a one-dimensional well, for any law of the gradient noise (T10).

.. math:: x_{n+1} = x_n - η\,(V'(x_n) + ξ_n), \qquad V(x) = h(x²-1)², \qquad E ξ = 0, \; E ξ² = 1.

The SDE of such a loop knows two moments of ξ. Over a *fixed time* that is enough, up to O(η) (T11); for leaving a well
it is not, since exits are large deviations. With the cumulant generating function Λ(p) = log E e^{−pξ} the loop has,
for η → 0, the Hamiltonian H(x, p) = Λ(p) − pV'(x), and η log T tends to the quasi-potential

.. math:: ΔU = \int_a^b p(x)\,dx, \qquad Λ(p(x)) = p(x)\,V'(x), \; p ≠ 0 .

For Gaussian noise Λ = p²/2, p = 2V' and ΔU = 2ΔV: the exponent ΔV/D of Kramers' formula at D = η/2. Any other law has
further cumulants, hence another exponent: the SDE's T is wrong by a factor e^{const/η}. At h = ¼ and η = 0.1 the exact
times in units of η⁻¹ steps are 417 (Gaussian), 295 (Laplace), 108 and 10,800 (exponential, its long tail towards the
barrier and away from it), the SDE's is 362; ΔU is 0.5, 0.458, 0.353 and 0.828.

The exact exit time solves T(x) = 1 + ∫_{y<0} K(x, y)T(y)dy with K the density of one step, here on a grid of cells.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from sde_mtl.theory.check import Check, in_standard_errors

Array = NDArray[np.float64]
LOWEST = -3.0
"""End of the grid; paths below it count as there."""


@dataclass(frozen=True)
class NoiseLaw:
    """A law of ξ with mean 0 and variance 1.

    Attributes:
        cdf: its distribution function.
        cumulants: Λ(p) = log E e^{−pξ}.
        largest: p < largest is where Λ is finite.
        sample: so many draws.
    """

    cdf: Callable[[Array], Array]
    cumulants: Callable[[float], float]
    largest: float
    sample: Callable[[np.random.Generator, int], Array]


LAWS = {
    "Gaussian": NoiseLaw(norm.cdf, lambda p: p * p / 2, np.inf, lambda rng, n: rng.standard_normal(n)),
    "Laplace": NoiseLaw(
        lambda z: np.where(z < 0, np.exp(2**0.5 * np.minimum(z, 0)), 2 - np.exp(-(2**0.5) * np.maximum(z, 0))) / 2,
        lambda p: -float(np.log1p(-p * p / 2)), 2**0.5, lambda rng, n: rng.laplace(scale=0.5**0.5, size=n),
    ),
    "exponential towards the barrier": NoiseLaw(
        lambda z: np.exp(np.minimum(z, 1) - 1), lambda p: -p - float(np.log1p(-p)), 1.0,
        lambda rng, n: 1 - rng.exponential(size=n),
    ),
    "exponential away from it": NoiseLaw(
        lambda z: 1 - np.exp(-np.maximum(z + 1, 0)), lambda p: p - float(np.log1p(p)), np.inf,
        lambda rng, n: rng.exponential(size=n) - 1,
    ),
}  # fmt: skip
"""Noise of the gradient; a negative ξ pushes up, towards the barrier."""


def slope(x: Array | float, height: float) -> Array | float:
    """V'."""
    return 4 * height * x * (x * x - 1)


def exit_steps(law: NoiseLaw, learning_rate: float, *, height: float = 0.25, cells: int = 1200) -> float:
    """Mean number of steps from −1 to the first x ≥ 0, by the integral equation.

    Args:
        law: of the noise.
        learning_rate: η.
        height: h of the barrier.
        cells: of the grid; the error falls with their square.

    Example:
        >>> round(0.1 * exit_steps(LAWS["Gaussian"], 0.1))
        417
    """
    edges = np.linspace(LOWEST, 0, cells + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    reached = middle - learning_rate * slope(middle, height)
    below = 1 - law.cdf((reached[:, None] - edges[None, :]) / learning_rate)  # P(x' ≤ edge), since x' = reached − ηξ
    kernel = np.diff(below, axis=1)
    kernel[:, 0] += below[:, 0]
    times = np.linalg.solve(np.eye(cells) - kernel, np.ones(cells))
    return float(np.interp(-1.0, middle, times))


def exponent(law: NoiseLaw, *, height: float = 0.25) -> float:
    """ΔU, the limit of η log T, from the cumulant generating function.

    Args:
        law: of the noise.
        height: h of the barrier.

    Example:
        >>> round(exponent(LAWS["Gaussian"]), 6)  # 2ΔV
        0.5
    """

    def momentum(x: float) -> float:
        pull = float(slope(x, height))
        if pull <= 0:
            return 0.0
        top = min(law.largest * (1 - 1e-12), 50.0)
        return float(brentq(lambda p: law.cumulants(p) / p - pull, 1e-9, top, xtol=1e-13))

    return float(quad(momentum, -1 + 1e-9, -1e-9, limit=200)[0])


def simulated(law: NoiseLaw, learning_rate: float, *, paths: int, seed: int, height: float = 0.25) -> Array:
    """Steps to the first x ≥ 0 of every path of the loop, by simulation.

    Args:
        law: of the noise.
        learning_rate: η.
        paths, seed: of the simulation.
        height: h of the barrier.

    Example:
        >>> steps = simulated(LAWS["Laplace"], 0.3, paths=400, seed=0)
        >>> bool(abs(steps.mean() - exit_steps(LAWS["Laplace"], 0.3)) < 5 * steps.std() / 20)
        True
    """
    rng = np.random.default_rng(seed)
    x, numbers = np.full(paths, -1.0), np.arange(paths)
    steps, step = np.zeros(paths), 0
    while len(x):
        step += 1
        x = x - learning_rate * (slope(x, height) + law.sample(rng, len(x)))
        out = x >= 0
        steps[numbers[out]] = step
        x, numbers = x[~out], numbers[~out]
    return steps


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """The integral equation against simulation, the exponents against it, and the SDE's as controls.

    Args:
        seed: of the simulations.
        paths: base number of paths; 2.5 times as many run.
    """
    rows = []
    learning_rate, many = 0.2, 5 * paths // 2
    gaussian = exit_steps(LAWS["Gaussian"], learning_rate)
    for letter, (name, law) in zip("lmn", list(LAWS.items())[:3], strict=True):
        steps = simulated(law, learning_rate, paths=many, seed=seed)
        spread = (steps.mean(), steps.std(ddof=1) / many**0.5, f"{many} paths of the loop, η = {learning_rate}")
        rows.append(in_standard_errors(f"T10.{letter}", f"steps to the top by the integral equation, noise {name}",
                                       exit_steps(law, learning_rate), *spread))  # fmt: skip
    rows.append(in_standard_errors("T10.o", "the exit time depends on the noise's variance alone", gaussian, *spread,
                                   control=True))  # fmt: skip
    rates = (0.04, 0.032)
    for letter, name in zip("pqr", list(LAWS)[:3], strict=True):
        near, far = (np.log(eta * exit_steps(LAWS[name], eta)) for eta in rates)
        found = float((far - near) / (1 / rates[1] - 1 / rates[0]))
        predicted = exponent(LAWS[name])
        rows.append(Check(f"T10.{letter}", f"η log T → ΔU of the cumulant generating function, noise {name}",
                          predicted, found, abs(found - predicted) / predicted, 0.02, "relative",
                          f"integral equation, slope over 1/η between η = {rates[0]} and {rates[1]}"))  # fmt: skip
    rows.append(Check("T10.s", "ΔU is the SDE's 2ΔV for that noise too", 0.5, found, abs(found - 0.5) / 0.5, 0.02,
                      "relative", "the same slope", control=True))  # fmt: skip
    return rows
