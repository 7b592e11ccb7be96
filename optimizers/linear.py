"""Linear scalarization: the weighted sum of losses, the baseline that everybody uses."""

from collections.abc import Sequence

from torch import Tensor

from optimizers.gramian import check_gramian, check_task_weights


def linear(gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None) -> Tensor:
    r"""Coefficients of linear scalarization, :math:`F(G) = G^⊤ω = g_J`.

    Args:
        gramian: (..., K, K); only its shape and finiteness matter.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.

    Returns:
        (..., K) float64, the task weights.

    Raises:
        ValueError: for a Gramian or weights of the wrong shape, non-finite or negative.

    Example:
        >>> import torch
        >>> linear(torch.eye(2), [1.0, 4.0])
        tensor([1., 4.], dtype=torch.float64)
    """
    gramian = check_gramian(gramian)
    weights = check_task_weights(task_weights, gramian)
    return weights.expand(gramian.shape[:-1]).clone()
