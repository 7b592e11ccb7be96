r"""T7, weight-consistent CAME-Grad (new): without noise, stage 1 on ω_ig_i always descends the weighted loss.

With ``center="weighted"`` the trust region is centred at g_J/K, so ∠(u*, g_J) ≤ arcsin ρ and

.. math:: g_J^⊤F ≥ κ\sqrt{1-ρ²}\,‖g_J‖² \quad\text{for every } ν ∈ [0, 1].

F is continuous at g_J = 0 and vanishes only there: no chatter, and without gradient noise the task weights decide where
training rests (T6). The cost is the same: one K×K dual.

What it does not say: where training rests *with* noise, for E F(g+ε) is not F(g) (T12) and the coefficients depend on
the noise; nor that no task is harmed, which is the dual value's sign (T5), now for the weighted gradients.
"""

import numpy as np
import sympy
import torch

from optimizers import came_grad
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.descent import Center, came_grad_rule, descend, last
from sde_mtl.theory.examples import KAPPA, WEIGHTS, example


def derive() -> sympy.Expr:
    """The least value of g_JᵀF/(κ‖g_J‖²) over cos(u*, g_J) ≥ √(1−ρ²) and ν ∈ [0, 1].

    Raises:
        DerivationError: if it is not √(1−ρ²).

    Example:
        >>> derive()
        sqrt(1 - rho**2)
    """
    nu, cosine, rho = sympy.symbols("nu cosine rho", nonnegative=True)
    scaled = (1 - nu) * cosine + nu
    require(sympy.simplify(sympy.diff(scaled, nu) - (1 - cosine)) == 0, "T7, increasing in ν as cos ≤ 1")
    return scaled.subs({nu: 0, cosine: sympy.sqrt(1 - rho**2)})


def settle(nu: float, *, center: Center, steps: int = 1000, learning_rate: float = 0.01) -> torch.Tensor:
    """End point of noiseless training on the pair of quadratics at a constant step, (2,).

    Args:
        nu, center: of CAME-Grad.
        steps, learning_rate: of training.
    """
    rule = came_grad_rule(torch.tensor(WEIGHTS, dtype=torch.float64), nu=nu, center=center)
    return last(descend(torch.tensor([2.0, 2.0], dtype=torch.float64), rule, steps, learning_rate))


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """The bound on random gradients for three ν, the resting point at a constant step, and the paper's centre."""
    derive()
    rng = np.random.default_rng(seed)
    G = torch.from_numpy(rng.normal(size=(20_000, 3, 4)) * np.exp(rng.uniform(-2, 2, size=(20_000, 3, 1))))
    w = torch.from_numpy(rng.uniform(0.1, 5, size=(20_000, 3)))

    def least(nu: float, center: Center) -> float:
        r = came_grad(G, w, nu=nu, kappa=KAPPA, center=center)
        return float(((r.joint * r.update).sum(-1) / (KAPPA * r.joint.square().sum(-1))).min())

    bound = 0.75**0.5
    values = [least(nu, "weighted") for nu in (0.0, 0.2, 0.9)]
    target = example().minimizer(WEIGHTS)
    distance = float((settle(0.2, center="weighted") - target).norm())
    paper = float((settle(0.2, center="mean") - target).norm())
    return [
        Check("T7.a", "g_JᵀF/(κ‖g_J‖²) ≥ √(1−ρ²) for ν = 0, 0.2, 0.9", bound, min(values),
              max(0.0, bound - min(values)), 1e-9, "absolute", "20,000 random triples, least"),
        Check("T7.b", "rests at the weighted minimizer at a constant step, ν = 0.2", 0.0, distance, distance, 1e-12,
              "absolute", "1,000 noiseless steps, η = 0.01", scale=paper),
        Check("T7.c", "the same bound with the paper's centre", bound, least(0.2, "mean"),
              max(0.0, bound - least(0.2, "mean")), 1e-9, "absolute", "20,000 random triples, least", control=True),
        Check("T7.d", "the paper's centre rests at the weighted minimizer, ν = 0.2", 0.0, paper, paper, 1e-8,
              "absolute", "1,000 noiseless steps, η = 0.01", control=True),
    ]  # fmt: skip
