"""Noisy training with an aggregator on any losses, to see where it comes to rest (T13, T15, T20).

Beside :func:`sde_mtl.simulate` for what that does not do: momentum, noise that is not Gaussian, coefficients from a
micro-batch of their own, and the average of each path over time, which tells a resting point from few paths.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from optimizers import gramian
from sde_mtl.theory.hidden_weights import Rule, factor

Array = NDArray[np.float64]
Law = Callable[[np.random.Generator, tuple[int, ...]], Array]
"""Independent numbers of mean 0 and variance 1, of a shape."""


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers."""
    return rng.normal(size=shape)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Student's t with five degrees of freedom, scaled to variance 1: kurtosis 9."""
    return rng.standard_t(5, size=shape) * np.sqrt(3 / 5)


def train(
    gradients: Callable[[Tensor], Tensor],
    rule: Rule,
    covariance: ArrayLike,
    start: ArrayLike,
    learning_rate: float,
    steps: int,
    *,
    momentum: float = 0.0,
    paths: int = 64,
    seed: int = 0,
    law: Law = gaussian,
    independent: bool = False,
) -> Array:
    """Average position of each path over the last half of noisy training, (paths, d).

    Args:
        gradients: (paths, d) positions to (paths, K, d) exact gradients.
        rule: Gramians to coefficients.
        covariance: (K, K) S, of one component of the noise.
        start: (d,) of every path.
        learning_rate, steps, momentum: of training; the velocity is βv + F.
        paths: independent runs.
        seed: of the noise.
        law: of the noise's components.
        independent: take the coefficients from a micro-batch of their own.

    Example:
        >>> from sde_mtl.theory.hidden_weights import rule
        >>> pull = lambda theta: torch.stack([theta, theta - 1], 1)
        >>> ends = train(pull, rule([1.0, 4.0], nu=1.0), 1e-6 * np.eye(2), np.zeros(3), 0.05, 200, paths=2)
        >>> np.allclose(ends, 0.8, atol=1e-3)
        True
    """
    rng = np.random.default_rng(seed)
    C = factor(covariance)
    theta = torch.from_numpy(np.tile(np.asarray(start, np.float64), (paths, 1)))
    velocity, total = torch.zeros_like(theta), torch.zeros_like(theta)
    shape = (paths, len(C), theta.shape[1])
    for t in range(steps):
        exact = gradients(theta)
        seen = exact + torch.from_numpy(C @ law(rng, shape))
        judged = exact + torch.from_numpy(C @ law(rng, shape)) if independent else seen
        velocity = momentum * velocity + torch.einsum("nk,nkd->nd", rule(gramian(judged)), seen)
        theta = theta - learning_rate * velocity
        if t >= steps // 2:
            total += theta
    return (total / (steps - steps // 2)).numpy()
