"""Aligned-MTL: task gradients made orthogonal and equally long (Senushkin et al., CVPR 2023, arXiv:2305.19000)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from optimizers.aggregators.base import scaled
from optimizers.kernels.floats import RANK
from optimizers.linalg import times

ScaleMode = Literal["min", "median", "rmse"]


def aligned_mtl(
    gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None, *, scale: ScaleMode = "min"
) -> Tensor:
    r"""Coefficients of :math:`\hat G^⊤ω`, where Ĝ is the multiple of a matrix with orthonormal rows nearest to G.

    Algorithm 1 of Senushkin et al.: with the eigenvalues λ and eigenvectors V of the Gramian M,

    .. math:: \hat G = BG, \qquad B = σ\,VΛ^{-1/2}V^⊤ = σM^{-1/2}, \qquad c = Bω,

    so that Ĝ's condition number is 1 and every aligned gradient has length σ.

    * Weights: ω is the paper's vector of task preferences, applied to the aligned gradients. This method says
      so itself; weights on the gradients g_i would be aligned away. A task of weight zero still takes part in the
      alignment, and its coefficient need not be 0.
    * Assumes linearly independent gradients. Eigenvalues below 16ε·K·λ_max (ε = 2⁻⁵²), which a float64 Gramian
      cannot tell from 0, are left out, as the paper leaves out those below the rank. With "min" the length of the
      update jumps where an eigenvalue becomes 0; it is the smallest of those left that counts.
    * The weighted loss descends: :math:`g_J^⊤u = σω^⊤M^{1/2}ω ≥ σ²‖Pω‖²` with P the projection on the range of
      M, and ‖u‖ = σ‖Pω‖. Single tasks may be harmed.
    * Zero only where Pω = 0. For two tasks that is where the gradients are opposite, and equally long under
      equal weights; other Pareto-stationary points are not recognized, and near one with independent gradients
      σ = √λ_min goes to 0.
    * Duplicates share; a zero gradient keeps coefficient 0 (its row of B is 0). Where all gradients are zero, c = ω,
      as for equally long orthogonal ones.
    * The coefficients do not change when all gradients are scaled: F is homogeneous of degree one.
    * Cost: one eigendecomposition, O(K³).

    Args:
        gramian: (..., K, K) float32 or float64; computed in float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.
        scale: σ² is the smallest ("min", the paper's), the lower median ("median") or the mean ("rmse") of the
            eigenvalues that are not zero.

    Returns:
        (..., K) float64.

    Raises:
        ValueError: for a matrix that is no Gramian, bad weights, or an unknown scale.

    Example:
        >>> aligned_mtl(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([1.0000, 0.5000], dtype=torch.float64)
        >>> aligned_mtl(torch.tensor([[5.0, 4.0], [4.0, 5.0]]), [1.0, 4.0])
        tensor([-0.6667,  2.3333], dtype=torch.float64)
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f"scale = {scale!r} must be 'min', 'median' or 'rmse'")
    M, weights, unit = scaled(gramian, task_weights)
    tasks = M.shape[-1]
    eigenvalues, vectors = torch.linalg.eigh(M)
    kept = eigenvalues > RANK * tasks * eigenvalues[..., -1:]
    rank = kept.sum(-1, keepdim=True)
    values = torch.where(kept, eigenvalues, 0.0)
    if scale == "rmse":
        square = values.sum(-1, keepdim=True) / rank.clamp_min(1)
    else:
        index = tasks - rank + ((rank - 1) // 2 if scale == "median" else 0)
        square = values.gather(-1, index.clamp(0, tasks - 1))
    factor = torch.where(kept, (square / torch.where(kept, values, 1.0)).sqrt(), 0.0)
    aligned = times(vectors, factor * times(vectors.mT, weights))
    return torch.where(rank > 0, aligned, weights) * unit
