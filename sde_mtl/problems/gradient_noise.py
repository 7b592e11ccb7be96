"""Gradient noise: how the gradients that training observes differ from the exact ones."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sde_mtl.problems.quadratic import Problem
from sde_mtl.random import normals


class GradientNoise(Protocol):
    """How observed gradients differ from exact ones: :class:`AdditiveNoise`, ``MinibatchNoise``, or your own."""

    tasks: int
    dimension: int

    def observe(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """Gradients that training sees at θ (n, d): (n, K, d), of its dtype and device."""
        ...

    def gaussian(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """Gaussian noise ε of the same covariance as the gradient noise at θ (n, d): (n, K, d)."""
        ...


class AdditiveNoise:
    r"""Gaussian gradient noise ε with a constant covariance Σ over all tasks together.

    Args:
        covariance: (K, d, K, d) float64, ``covariance[i, :, j, :]`` = Σ_ij = Cov(ε_i, ε_j).

    Attributes:
        covariance: (K, d, K, d) float64.
        factor: (K·d, K·d) float64 with factor·factorᵀ = Σ.

    Raises:
        ValueError: for another shape, or a matrix that is not symmetric positive semidefinite; the
            message names the eigenvalue.

    Example:
        >>> noise = AdditiveNoise.correlated([1.0, 4.0], correlation=-0.5, dimension=2)
        >>> noise.covariance[0, 0, 1, 0].item()
        -1.0
        >>> noise.sample(torch.arange(3), step=0, seed=1).shape
        torch.Size([3, 2, 2])
    """

    def __init__(self, covariance: Tensor | ArrayLike) -> None:
        sigma = torch.as_tensor(np.asarray(covariance), dtype=torch.float64)
        if sigma.dim() != 4 or sigma.shape[:2] != sigma.shape[2:]:
            raise ValueError(f"covariance must have shape (K, d, K, d), got {tuple(sigma.shape)}")
        self.tasks, self.dimension = sigma.shape[:2]
        matrix = sigma.reshape(self.tasks * self.dimension, -1)
        if not torch.allclose(matrix, matrix.T, rtol=1e-10, atol=0):
            raise ValueError("covariance must be symmetric: Σ_ji = Σ_ijᵀ")
        values, vectors = torch.linalg.eigh(matrix)
        if values[0] < -1e-10 * values[-1].abs():
            raise ValueError(
                f"covariance must be positive semidefinite, its least eigenvalue is {values[0].item():.4g}; "
                "the cross-task correlations contradict each other"
            )
        self.covariance = sigma
        self.factor = vectors * values.clamp_min(0).sqrt()

    @classmethod
    def correlated(
        cls, variances: ArrayLike, *, correlation: float | ArrayLike = 0.0, dimension: int = 1
    ) -> "AdditiveNoise":
        """Isotropic noise Σ_ij = R_ij √(v_i v_j) I.

        Args:
            variances: (K,) variances of one component, ≥ 0.
            correlation: between any two tasks, or a (K, K) correlation matrix.
            dimension: d.

        Raises:
            ValueError: as the constructor, or for a negative variance.
        """
        v = np.asarray(variances, dtype=np.float64)
        if (v < 0).any():
            raise ValueError(f"variances must be >= 0, got {v.tolist()}")
        R = np.asarray(correlation, dtype=np.float64)
        if R.ndim == 0:
            R = np.where(np.eye(len(v), dtype=bool), 1.0, R)
        return cls(np.einsum("ij,i,j,ab->iajb", R, np.sqrt(v), np.sqrt(v), np.eye(dimension)))

    def sample(self, paths: Tensor, step: int, *, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """ε of the given paths at one step: (n, K, d)."""
        z = normals(paths, step, len(self.factor), seed=seed, dtype=dtype)
        return (z @ self.factor.to(z).T).reshape(-1, self.tasks, self.dimension)

    def observe(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """Exact gradients plus ε, (n, K, d)."""
        return problem.gradients(theta) + self.sample(paths, step, seed=seed, dtype=theta.dtype)

    def gaussian(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """ε itself, wherever θ is: (n, K, d)."""
        return self.sample(paths, step, seed=seed, dtype=theta.dtype)

    def joint_covariance(self, task_weights: Tensor | ArrayLike) -> Tensor:
        r"""Covariance of the joint gradient's noise, :math:`Σ_{LS} = Σ_{ij} ω_iω_jΣ_{ij}` (theory T3).

        Returns:
            (d, d) float64.
        """
        w = torch.as_tensor(task_weights, dtype=torch.float64)
        return torch.einsum("i,iajb,j->ab", w, self.covariance, w)
