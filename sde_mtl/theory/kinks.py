"""Where the delta method of T4 ends: the distance to the nearest kink of F, and what larger noise measures."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from optimizers import came_grad
from sde_mtl.problems import AdditiveNoise
from sde_mtl.theory.examples import pair
from sde_mtl.theory.sensitivity import linearize

Array = NDArray[np.float64]


def kink_distance(gradients: torch.Tensor, *, rho: float = 0.5, step: float = 1e-6) -> float:
    """Distance to the nearest kink of F in the direction of steepest approach, to first order.

    The least of v/‖∂v/∂G‖ over what must stay positive on a branch: the α_i that are, by how much g_iᵀu* exceeds the
    least product where α_i = 0, ‖μ‖ and ‖g_α‖. Noise of standard
    deviation σ per component reaches it at d/σ standard deviations; the delta method holds where that is 3 or more.

    Args:
        gradients: (K, d) float64.
        rho: of stage 1.
        step: of the central differences.

    Example:
        >>> [round(kink_distance(pair(1.0, np.deg2rad(phi))), 3) for phi in (60, 120, 170)]
        [0.118, 0.354, 0.123]
        >>> round(kink_distance(pair(1.5, np.deg2rad(120))), 3)  # the dual weighs one task, the other is close
        0.027
    """

    def positive(G: torch.Tensor) -> torch.Tensor:
        r = came_grad(G, rho=rho)
        combined = torch.einsum("...k,...kd->...d", r.alpha, G)
        products = torch.einsum("...kd,...d->...k", G, r.rectified)
        slack = products - products.amin(-1, keepdim=True)
        return torch.cat([r.alpha, slack, r.mean.norm(dim=-1, keepdim=True), combined.norm(dim=-1, keepdim=True)], -1)

    directions = torch.eye(gradients.numel(), dtype=torch.float64).reshape(-1, *gradients.shape)
    slope = (positive(gradients + step * directions) - positive(gradients - step * directions)) / (2 * step)
    value = positive(gradients)
    alive = value > 1e-9 * float(gradients.square().sum())
    return float((value / slope.norm(dim=0))[alive].min())


def breakdown(
    ratio: float, angle: float, scales: Sequence[float], *, samples: int = 20_000, seed: int = 0
) -> tuple[Array, Array, float]:
    """Where the delta method breaks: measured tr Cov F(g + ε)/scale² and its standard error, and the prediction.

    Args:
        ratio, angle: of the pair of gradients.
        scales: standard deviations of one component of the noise, relative to ‖g_1‖ = 1.
        samples: of the noise at each scale.
        seed: of the noise.

    Returns:
        (len(scales),) measured, (len(scales),) standard errors, and the one number predicted for all of them.

    Example:
        >>> measured, error, predicted = breakdown(1.0, np.deg2rad(120), [1e-3, 2.0])
        >>> (abs(measured - predicted) < 5 * error).tolist()
        [True, False]
    """
    G, w = pair(ratio, angle), torch.tensor([0.5, 0.5]).double()
    noise = AdditiveNoise.correlated([1.0, 1.0], dimension=2)
    predicted = float(linearize(G, w, kappa=1.0).diffusion(noise).trace())
    measured = [measured_trace(G, w, noise, scale, samples=samples, seed=seed) for scale in scales]
    return np.array([m for m, _ in measured]), np.array([e for _, e in measured]), predicted


def measured_trace(
    G: torch.Tensor, w: torch.Tensor, noise: AdditiveNoise, scale: float, *, samples: int, seed: int,
    rho: float = 0.5, kappa: float = 1.0, nu: float = 0.2,
) -> tuple[float, float]:  # fmt: skip
    """tr Cov F(g + scale·ε)/scale² and its standard error, by simulation.

    Args:
        G: (K, d) float64 exact gradients.
        w: (K,) task weights.
        noise: ε.
        scale: of the noise.
        samples, seed: of the noise.
        rho, kappa, nu: of CAME-Grad.

    Example:
        The delta method's prediction is tr JΣJᵀ:

        >>> G, w = pair(1.0, np.deg2rad(120)), torch.tensor([0.5, 0.5]).double()
        >>> noise = AdditiveNoise.correlated([1.0, 1.0], dimension=2)
        >>> trace, error = measured_trace(G, w, noise, 1e-3, samples=10_000, seed=0)
        >>> bool(abs(trace - linearize(G, w, kappa=1.0).diffusion(noise).trace()) < 5 * error)
        True
    """
    epsilon = noise.sample(torch.arange(samples), 0, seed=seed)
    update = came_grad(G + scale * epsilon, w, rho=rho, kappa=kappa, nu=nu).update / scale
    squared = (update - update.mean(0)).square().sum(-1)
    return float(squared.mean() * samples / (samples - 1)), float(squared.std() / samples**0.5)
