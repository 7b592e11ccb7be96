r"""T12, the expectation of the aggregate is biased: E F(g + ε) ≠ F(g).

.. math:: E\,F(g+ε) = F(g) + ½\,D²F:Σ + O(σ⁴), \qquad D²F:Σ = \sum_k D²F[ℓ_k, ℓ_k],

with ℓ_k the columns of a factor of Σ. Linear scalarization has no such bias (D²F = 0); CAME-Grad's drift under noise is
therefore not F(g), and the SDE's drift must carry the term (T4).

The expansion fails across a kink of F, and earlier than T4's diffusion does: with the nearest kink at 3.5 standard
deviations of the noise the term is off by a tenth (the control T12.h). There the drift is E F(g+ε) and the diffusion
Cov F(g+ε) themselves, functions of g that the noise has smoothed: as η → 0 the mean path of the loop follows
dθ/dt = −E F, not −F. It is checked with noise of the size of the gradients.

What it does not say: how E F depends on the dimension, on batch size or on imbalance of the noise.
"""

import numpy as np
import sympy
import torch

from optimizers import came_grad
from optimizers.aggregators.by_name import aggregator
from sde_mtl.problems import AdditiveNoise, Quadratic
from sde_mtl.simulation import Recursion, simulate
from sde_mtl.theory.check import Check, in_standard_errors, require
from sde_mtl.theory.examples import example, pair
from sde_mtl.theory.sensitivity import linearize

ENOUGH = 10_000
"""Base number of paths below which the control at the kink could pass."""
BATCH = 2**17
"""Antithetic pairs at a time."""


def derive() -> sympy.Expr:
    """½D²F:Σ of the energy-injection norm ‖g‖ in two dimensions, the simplest source of the bias.

    Returns:
        σ²/(2‖g‖), the bias of a norm under isotropic noise.

    Raises:
        DerivationError: if the Hessian's trace is not 1/‖g‖.

    Example:
        >>> derive()
        sigma**2/(2*sqrt(x**2 + y**2))
    """
    x, y = sympy.symbols("x y", real=True)
    sigma = sympy.Symbol("sigma", positive=True)
    norm = sympy.sqrt(x**2 + y**2)
    laplacian = sympy.simplify(sympy.diff(norm, x, 2) + sympy.diff(norm, y, 2))
    require(sympy.simplify(laplacian - 1 / norm) == 0, "T12, Laplacian of a norm")
    return sigma**2 * laplacian / 2


def predicted_bias(G: torch.Tensor, w: torch.Tensor, noise: AdditiveNoise, *, step: float = 1e-4) -> torch.Tensor:
    """½D²F:Σ, (d,), by central differences of the exact Jacobian along the columns of Σ's factor."""
    columns = noise.factor.T.reshape(-1, *G.shape)
    total = torch.zeros(G.shape[1], dtype=torch.float64)
    for column in columns:
        if column.abs().max() == 0:
            continue
        ahead, behind = linearize(G + step * column, w), linearize(G - step * column, w)
        total += torch.einsum("aib,ib->a", (ahead.jacobian - behind.jacobian) / (2 * step), column)
    return total / 2


def measured_bias(
    G: torch.Tensor, w: torch.Tensor, noise: AdditiveNoise, scale: float, *, samples: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(E F(g + scale·ε) − F(g))/scale² from antithetic pairs and its standard error, both (d,).

    Args:
        G: (K, d) float64 exact gradients.
        w: (K,) task weights.
        noise: ε.
        scale: of the noise.
        samples, seed: of the noise.
    """
    centre = came_grad(G, w).update
    total = torch.zeros(2, G.shape[1], dtype=torch.float64)
    for first in range(0, samples, BATCH):
        epsilon = scale * noise.sample(torch.arange(first, min(first + BATCH, samples)), 0, seed=seed)
        half = (came_grad(G + epsilon, w).update + came_grad(G - epsilon, w).update) / 2 - centre
        half = half / scale**2
        total += torch.stack([half.sum(0), half.square().sum(0)])
    mean, square = total / samples
    return mean, ((square - mean**2) / samples).sqrt()


def mean_path(problem: Quadratic, start: torch.Tensor, noise: AdditiveNoise, time: float, *, samples: int,
              steps: int = 20, smoothed: bool = True) -> torch.Tensor:  # fmt: skip
    """Where dθ/dt = −E F(g(θ) + ε) leads, by Heun's method, or dθ/dt = −F(g(θ)) without smoothing; (d,).

    Args:
        problem: the objectives.
        start: (d,).
        noise: ε, sampled once for the whole path.
        time: at the end.
        samples: for E F.
        steps: of Heun's method.
        smoothed: E F rather than F.
    """
    w = torch.full((problem.tasks,), 1 / problem.tasks, dtype=torch.float64)
    epsilon = noise.sample(torch.arange(samples), 0, seed=99)
    epsilon = torch.cat([epsilon, -epsilon]) if smoothed else torch.zeros_like(epsilon[:1])

    def drift(theta: torch.Tensor) -> torch.Tensor:
        return -came_grad(problem.gradients(theta) + epsilon, w).update.mean(0)

    theta, step = start, time / steps
    for _ in range(steps):
        first = drift(theta)
        theta = theta + step * (first + drift(theta + step * first)) / 2
    return theta


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Antithetic Monte Carlo at small noise in d = 2 and 20, the loop's mean path at large noise, four controls."""
    derive()
    rows = []
    two = torch.tensor([0.5, 0.5]).double()
    high = np.random.default_rng(3).normal(size=(3, 20)) / 20**0.5
    near_kink = pair(1.3, np.deg2rad(100))
    cases = (
        ("a", pair(1.0, np.deg2rad(120)), two, "φ = 120°, b/a = 1, d = 2", 0.005, 64 * paths),
        ("b", pair(1.3, np.deg2rad(120)), two, "φ = 120°, b/a = 1.3, d = 2", 0.005, 64 * paths),
        (
            "d",
            torch.from_numpy(high),
            torch.tensor([0.2, 0.5, 0.3]).double(),
            "K = 3, d = 20, random",
            0.005,
            8 * paths,
        ),
        (
            "h",
            near_kink,
            two,
            "kink at 3.5 SD, φ = 100°, b/a = 1.3, d = 2",
            0.02,
            96 * max(paths, ENOUGH),
        ),
    )
    for name, G, w, where, scale, samples in cases:
        noise = AdditiveNoise.correlated([1.0] * len(G), correlation=-0.3, dimension=G.shape[1])
        bias = predicted_bias(G, w, noise)
        measured, error = measured_bias(G, w, noise, scale, samples=samples, seed=seed)
        worst = int(((measured - bias).abs() / error).argmax())
        route, size = f"{samples} antithetic pairs, noise {scale}", float(bias.norm())
        rows.append(in_standard_errors(f"T12.{name}", f"E F(g+ε) − F(g) = ½D²F:Σ, {where}", float(bias[worst]),
                                       float(measured[worst]), float(error[worst]), route, scale=size,
                                       control=name == "h"))  # fmt: skip
        most = int((measured.abs() / error).argmax())
        if name in "bd":
            rows.append(in_standard_errors(f"T12.{'c' if name == 'b' else 'e'}", f"E F(g+ε) = F(g), {where}", 0.0,
                                           float(measured[most]), float(error[most]), route, scale=size,
                                           control=True))  # fmt: skip
    return rows + _check_path(seed, paths)


def _check_path(seed: int, paths: int) -> list[Check]:
    """The mean of the loop extrapolated to η = 0 against the smoothed and against the plain drift."""
    problem, time, start = example(), 1.0, torch.tensor([1.0, 1.0]).double()
    noise = AdditiveNoise.correlated([2.0, 2.0], dimension=2)
    rule = aggregator("came-grad")
    means, errors = [], []
    for eta in (0.02, 0.01):
        loop = Recursion(problem, noise, rule, [0.5, 0.5], eta)
        run = simulate(loop, start, round(time / eta), paths=2 * paths, seed=seed + round(1 / eta))
        means.append(run.mean[0])
        errors.append(run.mean_error()[0])
    found = 2 * means[1] - means[0]
    error = (4 * errors[1] ** 2 + errors[0] ** 2).sqrt()
    rows = []
    for name, smoothed in (("f", True), ("g", False)):
        end = mean_path(problem, start, noise, time, samples=8 * paths, smoothed=smoothed)
        worst = int(((found - end).abs() / error).argmax())
        rows.append(in_standard_errors(
            f"T12.{name}", f"as η → 0 the loop's mean follows −{'E F' if smoothed else 'F'}", float(end[worst]),
            float(found[worst]), float(error[worst]), f"{2 * paths} paths to t = 1, η = 0.02 and 0.01 extrapolated",
            scale=float((end - start).norm()), control=not smoothed))  # fmt: skip
    return rows
