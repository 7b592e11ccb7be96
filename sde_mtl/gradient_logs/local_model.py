r"""A quadratic problem and its gradient noise near a checkpoint, made of what a gradient log holds there.

The n micro-batches give the mean and the joint covariance of the projected per-task gradients. The sample covariance S
has rank n − 1 ≪ Km, so it is shrunk towards a diagonal target with the same cross-task traces,

.. math:: \hat Σ = (1-λ)S + λ\,T ⊗ I_m/m, \qquad T_{ij} = \mathrm{tr}\,S_{ij},

low rank plus (block) diagonal, with λ by Ledoit and Wolf's formula (J. Multivariate Analysis 88, 2004). Every trace
tr Σ_ij is kept as it was measured.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sde_mtl.problems import Problem
from sde_mtl.random import normals


class EmpiricalNoise:
    """Gaussian gradient noise with the shrunk covariance of a sample of gradients.

    Args:
        sample: (n, K, m) gradients, n ≥ 3.

    Attributes:
        count: n.
        shrinkage: λ.
        traces: (K, K), T.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> noise = EmpiricalNoise(rng.normal(size=(20, 2, 50)))
        >>> noise.sample(torch.arange(4), 0, seed=1).shape, noise.shrinkage > 0.8  # isotropic: the target is the truth
        (torch.Size([4, 2, 50]), True)
    """

    def __init__(self, sample: ArrayLike) -> None:
        x = np.asarray(sample, np.float64)
        if x.ndim != 3 or len(x) < 3:
            raise ValueError(f"sample must be (n, K, m) with n >= 3, got {x.shape}")
        n, self.tasks, self.dimension = x.shape
        self.count = n
        centred = x - x.mean(0)
        self.traces = np.einsum("nim,njm->ij", centred, centred) / (n - 1)
        flat = centred.reshape(n, -1)
        inner = flat @ flat.T
        maximum_likelihood = self.traces * (n - 1) / n
        # ‖S − T‖² and the sampling variance of S, both with S = Σxxᵀ/n, from inner products alone.
        target = (maximum_likelihood**2).sum() / self.dimension
        squared = (inner**2).sum() / n**2
        distance = max(squared - target, 0.0)
        scatter = (np.diag(inner) ** 2).sum() / n**2 - squared / n
        self.shrinkage = float(np.clip(scatter / distance, 0, 1)) if distance > 0 else 1.0
        values, vectors = np.linalg.eigh(self.traces / self.dimension)
        self._rows = torch.from_numpy(flat * np.sqrt((1 - self.shrinkage) / (n - 1)))
        self._root = torch.from_numpy(vectors * np.sqrt(np.maximum(values, 0) * self.shrinkage))

    def sample(self, paths: Tensor, step: int, *, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """ε of the given paths at one step, (n, K, m)."""
        rank = len(self._rows)
        z = normals(paths, step, rank + self.tasks * self.dimension, seed=seed, dtype=dtype)
        low = (z[:, :rank] @ self._rows.to(z)).reshape(-1, self.tasks, self.dimension)
        return low + torch.einsum("ij,njm->nim", self._root.to(z), z[:, rank:].reshape(-1, self.tasks, self.dimension))

    def observe(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """Exact gradients plus ε."""
        return problem.gradients(theta) + self.sample(paths, step, seed=seed, dtype=theta.dtype)

    def gaussian(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """ε itself."""
        return self.sample(paths, step, seed=seed, dtype=theta.dtype)


class LocalModel:
    """Quadratic expansion of K losses at a checkpoint, with curvature along a few directions only.

    Args:
        mean: (K, m) gradients ḡ_i at θ = 0.
        basis: (r, m) directions, nearly orthonormal.
        hessian: (K, r, r).

    Example:
        >>> model = LocalModel(np.eye(2), np.eye(2)[:1], np.array([[[2.0]], [[0.0]]]))
        >>> model.gradients(torch.tensor([1.0, 5.0]).double())
        tensor([[3., 0.],
                [0., 1.]], dtype=torch.float64)
    """

    def __init__(self, mean: ArrayLike, basis: ArrayLike, hessian: ArrayLike) -> None:
        self.mean = torch.from_numpy(np.asarray(mean, np.float64))
        q, _ = np.linalg.qr(np.asarray(basis, np.float64).T)
        rotation = q.T @ np.asarray(basis, np.float64).T
        self.basis = torch.from_numpy(q)
        self.hessian = torch.from_numpy(rotation @ np.asarray(hessian, np.float64) @ rotation.T)
        self.tasks, self.dimension = self.mean.shape

    def losses(self, theta: Tensor) -> Tensor:
        """Change of each loss, (..., m) → (..., K)."""
        x = theta @ self.basis.to(theta)
        return theta @ self.mean.to(theta).T + 0.5 * torch.einsum("...a,kab,...b->...k", x, self.hessian.to(theta), x)

    def gradients(self, theta: Tensor) -> Tensor:
        """(..., m) → (..., K, m)."""
        basis = self.basis.to(theta)
        x = theta @ basis
        return self.mean.to(theta) + torch.einsum("kab,...b,ma->...km", self.hessian.to(theta), x, basis)
