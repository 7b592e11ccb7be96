"""What the compiled kernels are given: contiguous float64 arrays of plain CPU tensors."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimizers.gradients.checks import check_gramian
from optimizers.kernels.threads import in_threads

WORK = 1 << 12
"""Pieces given to a thread are about as long as so many problems of one task; the work grows as K²."""


def cpu_problems(gramian: Tensor) -> np.ndarray | None:
    """(B, K, K) float64, or None for whatever the kernels do not take: other devices, graphs, odd shapes and types.

    Example:
        >>> cpu_problems(torch.eye(2)).shape, cpu_problems(torch.eye(2, device="meta"))
        ((1, 2, 2), None)
    """
    if type(gramian) is not Tensor or not gramian.is_cpu or gramian.requires_grad:
        return None
    dtype, shape = gramian.dtype, gramian.shape
    if (dtype is not torch.float64 and dtype is not torch.float32) or gramian.layout is not torch.strided:
        return None
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] == 0:
        return None
    try:
        array = np.ascontiguousarray(gramian.numpy(), np.float64)
    except RuntimeError:  # inside torch.func transforms
        return None
    if len(shape) == 2:
        return array[None]
    return array.reshape((-1 if array.size else 0, *shape[-2:]))


def cpu_weights(task_weights: Tensor | Sequence[float] | None, batch: tuple[int, ...], tasks: int) -> np.ndarray | None:
    """(1 or B, K) float64 valid task weights; None for those that are not, or add batch dimensions.

    Example:
        >>> cpu_weights([1.0, 4.0], (), 2), cpu_weights([1.0, -4.0], (), 2)
        (array([[1., 4.]]), None)
    """
    if task_weights is None:
        return _ones(tasks)
    if isinstance(task_weights, Tensor):
        if type(task_weights) is not Tensor or task_weights.device.type != "cpu" or task_weights.requires_grad:
            return None
        if task_weights.layout != torch.strided or task_weights.is_complex():
            return None
        given: Any = task_weights.numpy
    else:
        given = lambda: task_weights  # noqa: E731
    try:
        weights = np.ascontiguousarray(given(), np.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    if weights.ndim == 0 or weights.shape[-1] != tasks or weights.shape[:-1] not in ((), tuple(batch)):
        return None
    weights = weights.reshape(-1, tasks)
    # min and max are NaN if any weight is.
    if not (weights.min(initial=np.inf) >= 0 and weights.max(initial=0) < np.inf and weights.any(-1).all()):
        return None
    return weights


def run(kernel: Callable[..., int], gramian: Tensor, problems: np.ndarray, *arguments: Any, rows: np.ndarray) -> int:
    """Run a kernel over all problems in threads; how many it left unsolved.

    Args:
        kernel: called with the problems, the arguments, the tolerance of the validity check, the rows to fill, and its
            piece of the range.
        gramian: that the problems were made of; its dtype sets the tolerance.

    Raises:
        ValueError: where a problem is no Gramian, as :func:`optimizers.gradients._gramian.check_gramian`.
    """
    tolerance = 2.0**-26 if gramian.dtype is torch.float64 else 2.0**-11.5
    count = len(problems)
    if count == 1:
        unsolved = least = kernel(problems, *arguments, tolerance, rows, 0, 1)
    else:
        shortest = max(WORK // problems.shape[1] ** 2, 16)
        left = in_threads(kernel, count, problems, *arguments, tolerance, rows, shortest=shortest)
        unsolved, least = sum(left), min(left)
    if least < 0:
        check_gramian(gramian)
        raise AssertionError("check_gramian and is_gramian disagree")
    return unsolved


@cache
def _ones(tasks: int) -> np.ndarray:
    return np.ones((1, tasks))
