"""Finite-sum multi-task regression: minibatch noise that is neither Gaussian nor additive."""

import torch
from torch import Tensor

from sde_mtl.problems.quadratic import Problem
from sde_mtl.random import normals, philox


class FiniteSumRegression:
    r"""K linear regressions on shared inputs, :math:`L_k(θ) = \frac{1}{2n}\sum_i (x_i^⊤θ - y_{ik})²`.

    Training samples minibatches with replacement, so that the gradient noise is real: its covariance depends on θ and
    its distribution on the data.

    Args:
        inputs: (n, d).
        targets: (n, K).

    Raises:
        ValueError: for shapes that do not fit.

    Example:
        >>> problem = FiniteSumRegression(torch.eye(2), torch.tensor([[1.0], [3.0]]))
        >>> problem.gradients(torch.zeros(2).double())
        tensor([[-0.5000, -1.5000]], dtype=torch.float64)
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        if inputs.dim() != 2 or targets.dim() != 2 or len(inputs) != len(targets):
            raise ValueError(
                f"inputs must be (n, d) and targets (n, K), got {tuple(inputs.shape)} and {tuple(targets.shape)}"
            )
        self.inputs, self.targets = inputs.double(), targets.double()
        self.tasks, self.dimension = targets.shape[1], inputs.shape[1]

    @classmethod
    def random(
        cls, *, samples: int, dimension: int, tasks: int, conflict: float = 1.0, seed: int = 0
    ) -> "FiniteSumRegression":
        """Gaussian inputs; task-specific solutions at distance ``conflict`` from a common one, unit residuals."""
        rng = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng, dtype=torch.float64)

        inputs = normal(samples, dimension)
        solutions = normal(dimension, 1) + conflict * normal(dimension, tasks)
        return cls(inputs, inputs @ solutions + normal(samples, tasks))

    def losses(self, theta: Tensor) -> Tensor:
        """(..., d) → (..., K)."""
        residual = self._residual(theta)
        return 0.5 * residual.square().mean(-2)

    def gradients(self, theta: Tensor) -> Tensor:
        """(..., d) → (..., K, d), of the full data."""
        residual = self._residual(theta)
        return torch.einsum("...nk,nd->...kd", residual, self.inputs.to(theta)) / len(self.inputs)

    def minibatch_gradients(self, theta: Tensor, paths: Tensor, step: int, *, batch_size: int, seed: int) -> Tensor:
        """Gradients on one minibatch a path, drawn with replacement under (seed, path, step): (n, K, d).

        Args:
            theta: (n, d).
            paths: (n,) int64 path numbers.
            step: step number.
            batch_size: of each minibatch.
            seed: of the draws.
        """
        blocks = torch.arange(-(-batch_size // 4), device=paths.device)[None, :]
        zero = torch.zeros_like(blocks)
        words = torch.stack(philox((paths[:, None], zero + step, blocks, zero + 1), seed), -1).reshape(len(paths), -1)
        chosen = words[:, :batch_size] * len(self.inputs) >> 32
        x, y = self.inputs.to(theta)[chosen], self.targets.to(theta)[chosen]
        residual = torch.einsum("nbd,nd->nb", x, theta)[..., None] - y
        return torch.einsum("nbk,nbd->nkd", residual, x) / batch_size

    def noise_covariance(self, theta: Tensor, *, batch_size: int) -> Tensor:
        """Exact covariance of the minibatch gradients, (..., d) → (..., K, d, K, d)."""
        residual = self._residual(theta)
        inputs = self.inputs.to(theta)
        second = torch.einsum("...ni,...nj,na,nb->...iajb", residual, residual, inputs, inputs)
        mean = self.gradients(theta)
        product = torch.einsum("...ia,...jb->...iajb", mean, mean)
        return (second / len(self.inputs) - product) / batch_size

    def _residual(self, theta: Tensor) -> Tensor:
        """x_i^⊤θ − y_ik, (..., n, K)."""
        return torch.einsum("nd,...d->...n", self.inputs.to(theta), theta)[..., None] - self.targets.to(theta)


class MinibatchNoise:
    """The gradient noise of minibatches drawn with replacement from a finite sum: neither Gaussian nor additive.

    Args:
        problem: the finite sum.
        batch_size: ≥ 1.

    Raises:
        ValueError: for a batch size below 1.

    Example:
        >>> problem = FiniteSumRegression.random(samples=50, dimension=2, tasks=2)
        >>> noise = MinibatchNoise(problem, batch_size=8)
        >>> noise.observe(problem, torch.zeros(3, 2).double(), torch.arange(3), 0, seed=0).shape
        torch.Size([3, 2, 2])
    """

    def __init__(self, problem: FiniteSumRegression, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size} must be at least 1")
        self.problem, self.batch_size = problem, batch_size
        self.tasks, self.dimension = problem.tasks, problem.dimension

    def observe(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """Gradients on one minibatch a path, (n, K, d)."""
        return self.problem.minibatch_gradients(theta, paths, step, batch_size=self.batch_size, seed=seed)

    def gaussian(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """Gaussian noise with the minibatch covariance at each θ, (n, K, d)."""
        size = self.tasks * self.dimension
        covariance = self.problem.noise_covariance(theta, batch_size=self.batch_size).reshape(-1, size, size)
        values, vectors = torch.linalg.eigh(covariance)
        z = normals(paths, step, size, seed=seed, dtype=theta.dtype)
        scaled = values.clamp_min(0).sqrt() * z
        return torch.einsum("nab,nb->na", vectors, scaled).reshape(-1, self.tasks, self.dimension)
