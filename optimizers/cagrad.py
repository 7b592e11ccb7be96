"""CAGrad: conflict-averse gradient descent (Liu, Liu, Jin, Stone, Liu, NeurIPS 2021, arXiv:2110.14048).

Its subproblem is stage 1 of CAME-Grad: the same ball around the mean gradient, the same max–min objective, with
c in place of ρ. CAME-Grad adds the magnitude of stage 2 and the fusion of stage 3 to it.
"""

from collections.abc import Sequence

from torch import Tensor

from optimizers.came_grad import came_grad_stages


def cagrad(gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None, *, c: float = 0.5) -> Tensor:
    r"""Coefficients of :math:`\arg\max_u \min_i ω_ig_i^⊤u` subject to :math:`‖u - g_J/K‖ ≤ c‖g_J/K‖`.

    Args:
        gramian: (..., K, K) float32 or float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.
        c: relative radius in [0, 1).

    Returns:
        (..., K) float64, for the direction in the units of the mean weighted gradient.

    Raises:
        ValueError: as :func:`optimizers.came_grad_coefficients`.

    Example:
        >>> import torch
        >>> cagrad(torch.eye(2), c=0.5)
        tensor([0.7500, 0.7500], dtype=torch.float64)
    """
    return came_grad_stages(gramian, task_weights, rho=c, center="weighted").rectified
