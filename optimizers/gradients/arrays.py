"""Which tensors numpy and the compiled kernels can read where they lie."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KINDS = {torch.float32: np.empty(0, np.float32), torch.float64: np.empty(0, np.float64)}
"""Dtypes that the kernels read, as arrays that tell them the dtype."""


def readable(tensor: Tensor) -> bool:
    """Whether its numbers are in the CPU's memory and nobody else needs to know that they are read.

    That is so for dense tensors that are neither part of a graph, nor a negative view, nor of a subclass.

    Example:
        >>> readable(torch.ones(2)), readable(torch.ones(2, device="meta")), readable(torch.ones(2).requires_grad_())
        (True, False, False)
    """
    return (
        type(tensor) is Tensor
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and not tensor.is_neg()
    )


def as_array(tensor: Tensor) -> NDArray[Any] | None:
    """The same memory as an array; None where numpy cannot read it.

    Example:
        >>> as_array(torch.tensor([1.0, 2.0])), as_array(torch.ones(2, dtype=torch.bfloat16))
        (array([1., 2.], dtype=float32), None)
    """
    if not readable(tensor):
        return None
    try:
        return tensor.numpy()
    except (RuntimeError, TypeError):  # inside torch.func transforms; a dtype that numpy lacks
        return None
