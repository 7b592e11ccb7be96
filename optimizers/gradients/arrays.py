"""Which tensors numpy and the compiled kernels can read where they lie."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KINDS = {torch.float32: np.empty(0, np.float32), torch.float64: np.empty(0, np.float64)}
"""Dtypes that the kernels read, as arrays that tell them the dtype."""


def as_array(tensor: Tensor) -> NDArray[Any] | None:
    """The same memory as an array; None for whatever numpy cannot or should not read.

    These are tensors elsewhere, in a graph, of a subclass, not dense, of a dtype that numpy lacks, negative views, and
    tensors inside transforms of ``torch.func``.

    Example:
        >>> as_array(torch.tensor([1.0, 2.0])), as_array(torch.ones(2, dtype=torch.bfloat16))
        (array([1., 2.], dtype=float32), None)
    """
    if type(tensor) is not Tensor or not tensor.is_cpu or tensor.requires_grad:
        return None
    try:
        return tensor.numpy()
    except (RuntimeError, TypeError):
        return None


def address(tensor: Tensor) -> int | None:
    """Where the kernels find the numbers, at the price of a tenth of :func:`as_array`; None as there.

    Example:
        >>> x = torch.ones(2)
        >>> address(x) == x.data_ptr(), address(x.to_sparse()), address(torch.ones(2, dtype=torch.float16))
        (True, None, None)
    """
    if type(tensor) is not Tensor or not tensor.is_cpu or tensor.requires_grad or tensor.dtype not in KINDS:
        return None
    if tensor.layout is not torch.strided or tensor.is_neg():
        return None
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return None
