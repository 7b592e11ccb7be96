"""How often noise makes the weighted sum harm a task, predicted and simulated (T2 with the noise of T3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from scipy.stats import norm

from sde_mtl.problems import AdditiveNoise


@dataclass(frozen=True)
class HarmShare:
    """Share of steps along the noisy joint gradient that harm a task.

    Attributes:
        measured, error: of simulated noise, and its standard error.
        predicted: Φ(−g_iᵀg_J / √(g_iᵀΣ_LSg_i)).
    """

    measured: float
    error: float
    predicted: float


def predicted_harm(gradients: torch.Tensor, task_weights: ArrayLike, noise: AdditiveNoise, *, task: int = 0) -> float:
    """P(g_iᵀ(g_J + ε_J) < 0), ε_J ~ N(0, Σ_LS).

    Args:
        gradients: (K, d) float64, exact.
        task_weights: (K,).
        noise: of the gradients.
        task: i.

    Example:
        One half at the threshold cos φ = −ω_1a/(ω_2b), here −1/4:

        >>> G = torch.tensor([[1.0, 0.0], [-0.25, 0.9375**0.5]], dtype=torch.float64)
        >>> predicted_harm(G, [1.0, 4.0], AdditiveNoise.correlated([1.0, 1.0], dimension=2))
        0.5
    """
    w = torch.as_tensor(task_weights, dtype=torch.float64)
    own, joint = gradients[task], w @ gradients
    spread = (own @ noise.joint_covariance(w) @ own).sqrt()
    return float(norm.cdf(-float(own @ joint / spread)))


def harm_under_noise(
    gradients: torch.Tensor, task_weights: Sequence[float], noise: AdditiveNoise, *, task: int = 0,
    samples: int = 20_000, seed: int = 0,
) -> HarmShare:  # fmt: skip
    """The share by simulation beside the prediction.

    Args:
        gradients, task_weights, noise, task: as in :func:`predicted_harm`.
        samples: noise vectors.
        seed: of the noise.

    Example:
        >>> noise = AdditiveNoise.correlated([0.5, 0.5], correlation=-0.7, dimension=2)
        >>> share = harm_under_noise(torch.eye(2).double(), [1.0, 4.0], noise)
        >>> abs(share.measured - share.predicted) < 4 * share.error
        True
    """
    w = torch.as_tensor(task_weights, dtype=torch.float64)
    observed = gradients + noise.sample(torch.arange(samples), 0, seed=seed)
    share = (torch.einsum("k,nkd->nd", w, observed) @ gradients[task] < 0).double().mean().item()
    error = (share * (1 - share) / samples) ** 0.5
    return HarmShare(share, error, predicted_harm(gradients, task_weights, noise, task=task))
