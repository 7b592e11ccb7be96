"""The Jacobian of :mod:`sde_mtl.theory.sensitivity` by two other routes (T4): differences, and autograd."""

import numpy as np
import torch

from optimizers import came_grad
from sde_mtl.theory.sensitivity import linearize


def finite_differences(rng: np.random.Generator, tasks: int) -> tuple[float, set[int]]:
    """Largest relative distance to central differences on 60 random problems, and the sizes of support among them.

    Args:
        rng: draws the problems.
        tasks: K.

    Example:
        >>> error, supports = finite_differences(np.random.default_rng(0), 2)
        >>> error < 1e-6, supports
        (True, {1, 2})
    """
    worst, branches, tried = 0.0, set(), 0
    while tried < 60:
        G = torch.from_numpy(rng.normal(size=(tasks, 6)) * np.exp(rng.uniform(-0.7, 0.7, size=(tasks, 1))))
        w = torch.from_numpy(rng.uniform(0.3, 2, tasks))
        at = linearize(G, w)
        if at.margin < 1e-3:
            continue
        tried += 1
        branches.add(int(at.support.sum()))
        direction = torch.from_numpy(rng.normal(size=G.shape))
        h = 1e-5
        numeric = (came_grad(G + h * direction, w).update - came_grad(G - h * direction, w).update) / (2 * h)
        exact = torch.einsum("aib,ib->a", at.jacobian, direction)
        worst = max(worst, float((numeric - exact).norm() / exact.norm()))
    return worst, branches


def automatic_differences(rng: np.random.Generator) -> float:
    """Largest relative distance to torch's automatic differentiation of the closed form, K = 2, 40 random pairs.

    Args:
        rng: draws the pairs.

    Example:
        >>> automatic_differences(np.random.default_rng(0)) < 1e-9
        True
    """
    worst = 0.0
    for _ in range(40):
        G = torch.from_numpy(rng.normal(size=(2, 4)) * np.exp(rng.uniform(-0.7, 0.7, size=(2, 1))))
        w = torch.from_numpy(rng.uniform(0.3, 2, 2))
        at = linearize(G, w)
        if at.margin < 1e-6:
            continue
        automatic = torch.autograd.functional.jacobian(lambda x, w=w: _closed_form(x, w), G)
        worst = max(worst, float((automatic - at.jacobian).norm() / at.jacobian.norm()))
    return worst


def _closed_form(
    G: torch.Tensor, w: torch.Tensor, rho: float = 0.5, kappa: float = 1.5, nu: float = 0.2
) -> torch.Tensor:
    """CAME-Grad for K = 2 from the closed form of α, written for autograd and nothing else."""
    first, second = G
    mu, delta, joint = (first + second) / 2, first - second, w @ G
    r, A, B, C, q = rho * mu.norm(), delta @ delta, second @ delta, second @ second, delta @ mu
    slack = r**2 * A - q**2
    m = torch.sqrt((C - B**2 / A) / A)
    alpha = torch.clamp(-q * m / slack.sqrt() - B / A, 0, 1) if slack > 0 else (q < 0).double()
    combined = alpha * first + (1 - alpha) * second
    u = mu + r * combined / combined.norm()
    return kappa * ((1 - nu) * joint.norm() * u / u.norm() + nu * joint)
