"""What the compiled kernels are given, contiguous float64 arrays of plain CPU tensors, and how they are run."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from optimizers.gradients.arrays import KINDS, as_array
from optimizers.gradients.checks import check_gramian, gramian_tolerance
from optimizers.kernels.columns import RESIDUAL
from optimizers.kernels.floats import SOLVED
from optimizers.kernels.threads import in_threads

Array = NDArray[np.float64]
WORK = 1 << 12
"""Pieces given to a thread are about as long as so many problems of one task; the work grows as K²."""


def cpu_problems(gramian: Tensor) -> Array | None:
    """(B, K, K) float64, or None for whatever the kernels do not take: other devices, graphs, odd shapes and types.

    Example:
        >>> import torch
        >>> cpu_problems(torch.eye(2)).shape, cpu_problems(torch.eye(2, device="meta"))
        ((1, 2, 2), None)
    """
    array = as_array(gramian)
    if array is None or gramian.dtype not in KINDS:
        return None
    shape = array.shape
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] == 0:
        return None
    array = np.ascontiguousarray(array, np.float64)
    if len(shape) == 2:
        return array[None]
    return array.reshape((-1 if array.size else 0, *shape[-2:]))


def cpu_weights(task_weights: Tensor | Sequence[float] | None, batch: tuple[int, ...], tasks: int) -> Array | None:
    """(1 or B, K) float64 valid task weights; None for those that are not, or add batch dimensions.

    Example:
        >>> cpu_weights([1.0, 4.0], (), 2), cpu_weights([1.0, -4.0], (), 2)
        (array([[1., 4.]]), None)
    """
    if task_weights is None:
        return _ones(tasks)
    numbers: Any = task_weights
    if isinstance(task_weights, Tensor):
        numbers = None if task_weights.is_complex() else as_array(task_weights)
        if numbers is None:
            return None
    try:
        weights = np.ascontiguousarray(numbers, np.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    if weights.ndim == 0 or weights.shape[-1] != tasks or weights.shape[:-1] not in ((), tuple(batch)):
        return None
    weights = weights.reshape(-1, tasks)
    # min and max are NaN if any weight is.
    if not (weights.min(initial=np.inf) >= 0 and weights.max(initial=0) < np.inf and weights.any(-1).all()):
        return None
    return weights


def run(kernel: Callable[..., int], gramian: Tensor, problems: Array, *arguments: Any, rows: Array) -> int:
    """Run a kernel over all problems in threads; how many it left unsolved.

    Args:
        kernel: called with the problems, the arguments, the tolerance of the validity check, the rows to fill, and its
            piece of the range.
        gramian: that the problems were made of; its dtype sets the tolerance.

    Raises:
        ValueError: where a problem is no Gramian, as :func:`optimizers.gradients.checks.check_gramian`.
    """
    tolerance = gramian_tolerance(gramian.dtype)
    count = len(problems)
    if count == 1:
        unsolved = least = kernel(problems, *arguments, tolerance, rows, 0, 1)
    else:
        shortest = max(WORK // problems.shape[1] ** 2, 16)
        counts = in_threads(kernel, count, problems, *arguments, tolerance, rows, shortest=shortest)
        unsolved, least = sum(counts), min(counts)
    if least < 0:
        check_gramian(gramian)
        raise AssertionError("check_gramian and is_gramian disagree")
    return unsolved


def solve_anew(rows: Array, solve: Callable[[NDArray[np.int64]], Tensor]) -> None:
    """Replace rows that the kernel left unsolved by those of the method in torch, where it comes closer.

    Args:
        rows: (B, ·) float64, with the columns of :mod:`optimizers.kernels.columns`.
        solve: the method, called with the indices of the unsolved problems; gives their rows.
    """
    indices = (~(rows[:, RESIDUAL] <= SOLVED)).nonzero()[0]
    again = solve(indices).numpy()
    closer = again[:, RESIDUAL] < rows[indices, RESIDUAL]
    rows[indices[closer]] = again[closer]


@cache
def _ones(tasks: int) -> Array:
    return np.ones((1, tasks))
