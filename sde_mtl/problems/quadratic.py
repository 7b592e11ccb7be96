"""Objectives whose training dynamics have known laws."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


class Problem(Protocol):
    """K losses of d parameters: a :class:`Quadratic`, a landscape, a finite sum, or your own."""

    tasks: int
    dimension: int

    def losses(self, theta: Tensor) -> Tensor:
        """(..., d) → (..., K), of the same dtype and device."""
        ...

    def gradients(self, theta: Tensor) -> Tensor:
        """(..., d) → (..., K, d), of the same dtype and device."""
        ...


class Quadratic:
    r"""K quadratic losses :math:`L_i(θ) = ½(θ-c_i)^⊤A_i(θ-c_i)`.

    Args:
        curvatures: (K, d, d) symmetric positive semidefinite A_i.
        centres: (K, d) minimizers c_i.

    Raises:
        ValueError: for shapes that do not fit, or an A_i that is not symmetric or has a negative
            eigenvalue; the message names the task.

    Example:
        >>> problem = Quadratic([[[1.0]], [[3.0]]], [[1.0], [-1.0]])
        >>> problem.gradients(torch.zeros(1).double())
        tensor([[-1.],
                [ 3.]], dtype=torch.float64)
        >>> problem.minimizer([1.0, 1.0])
        tensor([-0.5000], dtype=torch.float64)
    """

    def __init__(self, curvatures: Tensor | ArrayLike, centres: Tensor | ArrayLike) -> None:
        A = torch.as_tensor(np.asarray(curvatures), dtype=torch.float64)
        c = torch.as_tensor(np.asarray(centres), dtype=torch.float64)
        if c.dim() != 2 or A.shape != (*c.shape, c.shape[-1]):
            raise ValueError(
                f"curvatures must have shape (K, d, d) and centres (K, d), got {tuple(A.shape)} and {tuple(c.shape)}"
            )
        for task, matrix in enumerate(A):
            if not torch.allclose(matrix, matrix.T):
                raise ValueError(f"curvature of task {task} is not symmetric")
            least = torch.linalg.eigvalsh(matrix)[0].item()
            if least < 0:
                raise ValueError(f"curvature of task {task} has the negative eigenvalue {least:.4g}")
        self.curvatures, self.centres = A, c
        self.tasks, self.dimension = c.shape

    def losses(self, theta: Tensor) -> Tensor:
        """(..., d) → (..., K)."""
        offset = theta[..., None, :] - self.centres.to(theta)
        return 0.5 * torch.einsum("...ka,kab,...kb->...k", offset, self.curvatures.to(theta), offset)

    def gradients(self, theta: Tensor) -> Tensor:
        """(..., d) → (..., K, d), rows A_i(θ − c_i)."""
        offset = theta[..., None, :] - self.centres.to(theta)
        return torch.einsum("kab,...kb->...ka", self.curvatures.to(theta), offset)

    def hessian(self, task_weights: Tensor | ArrayLike) -> Tensor:
        """H = Σω_iA_i, (d, d)."""
        return torch.einsum("k,kab->ab", torch.as_tensor(task_weights, dtype=torch.float64), self.curvatures)

    def minimizer(self, task_weights: Tensor | ArrayLike) -> Tensor:
        """Minimizer of Σω_iL_i, (d,); raises ``torch.linalg.LinAlgError`` if H is singular."""
        w = torch.as_tensor(task_weights, dtype=torch.float64)
        pull = torch.einsum("k,kab,kb->a", w, self.curvatures, self.centres)
        return torch.linalg.solve(self.hessian(w), pull)
