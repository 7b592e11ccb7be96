r"""T12, the expectation of the aggregate is biased: E F(g + ε) ≠ F(g).

.. math:: E\,F(g+ε) = F(g) + ½\,D²F:Σ + O(σ⁴), \qquad D²F:Σ = \sum_k D²F[ℓ_k, ℓ_k],

with ℓ_k the columns of a factor of Σ. Linear scalarization has no such bias (D²F = 0); CAME-Grad's drift under noise is
therefore not F(g), and the SDE's drift must carry the term (T4).

What it does not say: the expansion fails across a kink of F, as T4's does.
"""

import numpy as np
import sympy
import torch

from optimizers import came_grad
from sde_mtl.problems import AdditiveNoise
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.examples import pair
from sde_mtl.theory.sensitivity import linearize

STANDARD_ERRORS = 5.0


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


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Antithetic Monte Carlo at a small noise against ½D²F:Σ; linear scalarization and no bias as controls."""
    derive()
    rows = []
    samples = 10 * paths
    w = torch.tensor([0.5, 0.5]).double()
    scale = 0.02
    for name, phi, ratio in (("a", 120.0, 1.0), ("b", 100.0, 1.3)):
        G = pair(ratio, np.deg2rad(phi))
        noise = AdditiveNoise.correlated([1.0, 1.0], correlation=-0.3, dimension=2)
        bias = predicted_bias(G, w, noise)
        epsilon = scale * noise.sample(torch.arange(samples), 0, seed=seed)
        centre = came_grad(G, w).update
        half = (came_grad(G + epsilon, w).update + came_grad(G - epsilon, w).update) / 2 - centre
        half = half / scale**2
        measured, error = half.mean(0), half.std(0) / samples**0.5
        z = (measured - bias).abs() / error
        worst = int(z.argmax())
        rows.append(
            Check(f"T12.{name}", f"E F(g+ε) − F(g) = ½D²F:Σ at φ = {phi:.0f}°, b/a = {ratio}", float(bias[worst]),
                  float(measured[worst]), float(z[worst]), STANDARD_ERRORS, "SE",
                  f"{samples} antithetic pairs, noise {scale}")
        )  # fmt: skip
    z0 = measured.abs() / error
    rows.append(Check("T12.c", "E F(g+ε) = F(g)", 0.0, float(measured[z0.argmax()]), float(z0.max()), STANDARD_ERRORS,
                      "SE", f"{samples} antithetic pairs, φ = 100°", control=True))  # fmt: skip
    return rows
