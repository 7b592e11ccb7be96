"""Training as a stochastic process: the recursion of any aggregator, its effective SDE, the SDE of a weighted sum.

Each advances many paths by one step; :func:`sde_mtl.simulate` runs them.
"""

import math
from typing import Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from optimizers import gramian
from optimizers.aggregators.base import Aggregator
from sde_mtl.problems import AdditiveNoise, GradientNoise, Problem, Quadratic
from sde_mtl.random import normals_in_pairs

DIFFERENCE = 1e-4
"""Size of the central differences of F, relative to the largest gradient entry."""


class Dynamics(Protocol):
    """What :func:`sde_mtl.simulate` advances: a class of this module, :class:`sde_mtl.EulerMaruyama`, or your own."""

    dimension: int
    time_step: float
    """Time that one step advances, in units where a step of the recursion takes η."""

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        """Positions after one step: (n, d) → (n, d), of the same dtype and device.

        The caller gives ``theta`` away: the step may write into it, and may return it. So use the returned tensor
        alone, and hand over a copy of what you want to keep.

        Args:
            theta: (n, d) positions; contiguous, and shared with no one.
            paths: (n,) int64 path numbers, which with the step and seed name the noise.
            step: number of the step, from 0 on.
            seed: of the noise.
        """
        ...


class _Training:
    """What the training loop and its effective SDE are made of."""

    def __init__(
        self,
        problem: Problem,
        noise: GradientNoise,
        aggregator: Aggregator,
        task_weights: Tensor | ArrayLike,
        learning_rate: float,
    ) -> None:
        _check(problem, noise, learning_rate)
        self.problem, self.noise, self.aggregator = problem, noise, aggregator
        self.task_weights = torch.as_tensor(task_weights, dtype=torch.float64)
        self.learning_rate = self.time_step = learning_rate
        self.dimension = problem.dimension


class Recursion(_Training):
    r"""The training loop itself, :math:`θ ← θ - ηF(G + ε)`, for any problem, noise and aggregator.

    Args:
        problem: the objectives.
        noise: the gradient noise.
        aggregator: Gramian (n, K, K) and task weights (K,) to coefficients (n, K), such as
            :func:`optimizers.linear` or :func:`sde_mtl.aggregator`'s.
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

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        """One training step of every path: (n, d) → a new (n, d) tensor; ``theta`` is only read."""
        observed = self.noise.observe(self.problem, theta, paths, step, seed=seed)
        return theta - self.learning_rate * aggregate(self.aggregator, observed, self.task_weights)


class EffectiveSDE(_Training):
    r"""Euler–Maruyama for the effective SDE of any aggregator F,

    .. math:: dΘ = -\bigl[F(g) + ½\,D²F:Σ\bigr]dt + \sqrt{η\,JΣJ^⊤}\,dW

    (theory T4). √Σ dW is drawn as Gaussian gradient noise ε and pushed through J by a central difference of F along ε,
    and D²F:Σ = E D²F[ε, ε] is estimated by the second difference along the same ε, so no Jacobian is formed; the
    estimate adds O(dt²) to a variance of O(dt).

    Args:
        problem, noise, aggregator, task_weights, learning_rate: as in :class:`Recursion`.
        time_step: dt; η by default.
        bias: whether the drift has its noise-induced term.

    Raises:
        ValueError: as :class:`Recursion`, or for a time step that is not positive.

    Example:
        For linear scalarization at dt = η it is the recursion itself:

        >>> from optimizers import linear
        >>> problem = Quadratic([[[1.0]], [[3.0]]], [[1.0], [-1.0]])
        >>> parts = problem, AdditiveNoise.correlated([1.0, 1.0]), linear, [1.0, 1.0], 0.1
        >>> theta, paths = torch.zeros(4, 1).double(), torch.arange(4)
        >>> effective, loop = EffectiveSDE(*parts), Recursion(*parts)
        >>> torch.allclose(effective.advance(theta.clone(), paths, 0, 0), loop.advance(theta, paths, 0, 0), atol=1e-8)
        True
    """

    def __init__(
        self,
        problem: Problem,
        noise: GradientNoise,
        aggregator: Aggregator,
        task_weights: Tensor | ArrayLike,
        learning_rate: float,
        *,
        time_step: float | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(problem, noise, aggregator, task_weights, learning_rate)
        self.time_step, self.bias = learning_rate if time_step is None else time_step, bias
        if not 0 < self.time_step < math.inf:
            raise ValueError(f"time_step = {time_step} must be finite and > 0")

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        """One Euler–Maruyama step of every path: (n, d) → a new (n, d) tensor; ``theta`` is only read."""
        dt = self.time_step
        g = self.problem.gradients(theta).double()
        noise = self.noise.gaussian(self.problem, theta, paths, step, seed=seed).double()
        largest = g.abs().amax((1, 2)) / noise.abs().amax((1, 2)).clamp_min(torch.finfo(torch.float64).tiny)
        h = (DIFFERENCE * largest)[:, None, None].clamp_min(torch.finfo(torch.float64).tiny)
        h = torch.where(h.isfinite(), h, 1.0)
        at, ahead, behind = (
            aggregate(self.aggregator, gradients, self.task_weights) for gradients in (g, g + h * noise, g - h * noise)
        )
        first = (ahead - behind) / (2 * h[:, 0])
        drift = at
        if self.bias:
            drift = drift + 0.5 * (ahead - 2 * at + behind) / h[:, 0] ** 2
        return theta - (dt * drift + math.sqrt(self.learning_rate * dt) * first).to(theta)


class LinearSDE:
    r"""Euler–Maruyama for the SDE of linear scalarization, :math:`dΘ = -g_J dt + \sqrt{ηΣ_{LS}}\,dW`.

    (arXiv:2605.22635, section 3; theory T3.)

    Args:
        problem, noise, task_weights, learning_rate: as in :class:`Recursion`.
        time_step: dt; η by default, where the scheme has the law of the recursion.

    Attributes:
        factor: (d, d) B with BBᵀ = η dt Σ_LS; d normals a step go through it, not the K·d of the tasks.

    Raises:
        ValueError: as :class:`Recursion`, or if dt·λ_max(H) ≥ 2, where the scheme explodes.

    Example:
        >>> problem = Quadratic([[[1.0]], [[3.0]]], [[1.0], [-1.0]])
        >>> silent = AdditiveNoise.correlated([0.0, 0.0])
        >>> process = LinearSDE(problem, silent, [1.0, 1.0], learning_rate=0.1, time_step=0.05)
        >>> process.advance(torch.zeros(1, 1).double(), torch.arange(1), 0, 0)
        tensor([[-0.1000]], dtype=torch.float64)
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
        self.factor = square_root(learning_rate * self.time_step * noise.joint_covariance(self.task_weights))

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        """One Euler–Maruyama step of every path: (n, d) → a new (n, d) tensor; ``theta`` is only read."""
        z = normals_in_pairs(paths, step, self.dimension, seed=seed, dtype=theta.dtype)
        joint = torch.einsum("k,nkd->nd", self.task_weights.to(theta), self.problem.gradients(theta))
        return theta - self.time_step * joint + z @ self.factor.to(theta).T


def aggregate(function: Aggregator, gradients: Tensor, task_weights: Tensor) -> Tensor:
    """F(G), the aggregated gradients: (n, K, d) → (n, d); coefficients are computed in float64.

    Example:
        >>> from optimizers import linear
        >>> aggregate(linear, torch.eye(2).double()[None], torch.tensor([1.0, 4.0]).double())
        tensor([[1., 4.]], dtype=torch.float64)
    """
    coefficients = function(gramian(gradients), task_weights.to(gradients.device))
    return torch.einsum("nk,nkd->nd", coefficients.to(gradients), gradients)


def square_root(covariance: Tensor) -> Tensor:
    """A matrix B with BBᵀ = C: the Cholesky factor, or one from eigenvectors if C is singular; (d, d) → (d, d).

    Example:
        >>> factor = square_root(torch.ones(2, 2).double())
        >>> torch.allclose(factor @ factor.T, torch.ones(2, 2).double())
        True
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()


def _check(problem: Problem, noise: GradientNoise, learning_rate: float) -> None:
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate = {learning_rate} must be finite and > 0")
    if (problem.tasks, problem.dimension) != (noise.tasks, noise.dimension):
        raise ValueError(
            f"problem has K = {problem.tasks}, d = {problem.dimension}, "
            f"noise has K = {noise.tasks}, d = {noise.dimension}"
        )
