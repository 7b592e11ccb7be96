"""Training as a stochastic process: the recursion of any aggregator, the SDE of linear scalarization.

Both advance many paths by one step; :mod:`sde_mtl.simulate` runs them.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from optimizers import gramian
from sde_mtl.noise import AdditiveNoise
from sde_mtl.problems import Quadratic

Aggregator = Callable[[Tensor, Tensor], Tensor]


class Dynamics(Protocol):
    """What :func:`sde_mtl.simulate.simulate` needs."""

    dimension: int
    time_step: float
    """Time that one step advances, in units where a step of the recursion takes η."""

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        """θ after one step: (n, d) float64 → (n, d)."""
        ...


class Recursion:
    r"""The training loop itself, :math:`θ ← θ - ηF(G + ε)`, for any aggregator.

    Args:
        problem: the objectives.
        noise: the gradient noise.
        aggregator: Gramian (n, K, K) and task weights (K,) to coefficients (n, K), such as
            :func:`optimizers.linear` or a ``functools.partial`` of ``came_grad_coefficients``.
        task_weights: (K,).
        learning_rate: η > 0.

    Raises:
        ValueError: if η is not positive, or problem and noise differ in K or d.

    Example:
        >>> from optimizers import linear
        >>> problem = Quadratic([[[1.0]], [[3.0]]], [[1.0], [-1.0]])
        >>> silent = AdditiveNoise.correlated([0.0, 0.0])
        >>> training = Recursion(problem, silent, linear, [1.0, 1.0], learning_rate=0.1)
        >>> training.advance(torch.zeros(1, 1).double(), torch.arange(1), 0, 0)
        tensor([[-0.2000]], dtype=torch.float64)
    """

    def __init__(
        self,
        problem: Quadratic,
        noise: AdditiveNoise,
        aggregator: Aggregator,
        task_weights: Tensor | ArrayLike,
        learning_rate: float,
    ) -> None:
        _check(problem, noise, learning_rate)
        self.problem, self.noise, self.aggregator = problem, noise, aggregator
        self.task_weights = torch.as_tensor(task_weights, dtype=torch.float64)
        self.learning_rate = self.time_step = learning_rate
        self.dimension = problem.dimension

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        """One training step of every path."""
        observed = self.problem.gradients(theta) + self.noise.sample(paths, step, seed=seed)
        coefficients = self.aggregator(gramian(observed), self.task_weights)
        return theta - self.learning_rate * torch.einsum("nk,nkd->nd", coefficients, observed)


class LinearSDE:
    r"""Euler–Maruyama for the SDE of linear scalarization, :math:`dΘ = -g_J dt + \sqrt{ηΣ_{LS}}\,dW`.

    (arXiv:2605.22635, section 3; theory T3.)

    Args:
        problem, noise, task_weights, learning_rate: as in :class:`Recursion`.
        time_step: dt; η by default, where the scheme is the recursion itself.

    Raises:
        ValueError: as :class:`Recursion`, or if dt·λ_max(H) ≥ 2, where the scheme explodes.
    """

    def __init__(
        self,
        problem: Quadratic,
        noise: AdditiveNoise,
        task_weights: Tensor | ArrayLike,
        learning_rate: float,
        *,
        time_step: float | None = None,
    ) -> None:
        _check(problem, noise, learning_rate)
        self.problem, self.noise = problem, noise
        self.task_weights = torch.as_tensor(task_weights, dtype=torch.float64)
        self.learning_rate, self.dimension = learning_rate, problem.dimension
        self.time_step = learning_rate if time_step is None else time_step
        stiffness = self.time_step * torch.linalg.eigvalsh(problem.hessian(self.task_weights))[-1].item()
        if not 0 < stiffness < 2:
            raise ValueError(
                f"time_step · λ_max(H) = {stiffness:.4g} must lie in (0, 2) for Euler–Maruyama to be stable; "
                f"choose time_step below {2 * self.time_step / stiffness:.4g}"
                if stiffness > 0
                else f"time_step = {self.time_step} must be > 0 and H must not vanish"
            )

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        """One Euler–Maruyama step of every path."""
        dt = self.time_step
        noise = self.noise.sample(paths, step, seed=seed)
        increment = math.sqrt(self.learning_rate * dt) * noise
        total = dt * self.problem.gradients(theta) + increment
        return theta - torch.einsum("k,nkd->nd", self.task_weights, total)


def _check(problem: Quadratic, noise: AdditiveNoise, learning_rate: float) -> None:
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate = {learning_rate} must be finite and > 0")
    if (problem.tasks, problem.dimension) != (noise.tasks, noise.dimension):
        raise ValueError(
            f"problem has K = {problem.tasks}, d = {problem.dimension}, "
            f"noise has K = {noise.tasks}, d = {noise.dimension}"
        )
