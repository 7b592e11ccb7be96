"""The sum of task gradients times factors, which takes little memory beside them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from optimizers.gradients._task_gradients import PartialGradients
from optimizers.gradients.addresses import Addresses, addresses

GROUP = 1 << 18
"""Entries of parameters that are summed together, and whose gradients are released together; 16 times as many on other
devices, where every call has its price."""


def weighted_sum(
    gradients: PartialGradients, factors: Sequence[float], *, release: bool = False
) -> list[Tensor | None]:
    """Σ c_i g_i as new tensors; None where no task reaches the parameter.

    Args:
        gradients: K lists of one gradient a parameter.
        factors: K numbers c.
        release: replace gradients by None in the lists as soon as they are summed, so that the sum takes the memory of
            those before.

    Example:
        >>> weighted_sum([[torch.ones(1), None, None], [torch.ones(1), torch.ones(1), None]], [1.0, 4.0])
        [tensor([5.]), tensor([4.]), None]
    """
    total: list[Tensor | None] = []
    parameters = len(gradients[0])
    while len(total) < parameters:
        first = last = len(total)
        entries = 0
        while last < parameters and entries < GROUP:
            like = next((part for of_task in gradients if (part := of_task[last]) is not None), None)
            if like is not None:
                entries += like.numel() if like.is_cpu else like.numel() // 16
            last += 1
        total += _sum_of_group([of_task[first:last] for of_task in gradients], factors)
        if release:
            for of_task in gradients:
                of_task[first:last] = [None] * (last - first)
    return total


def _sum_of_group(gradients: PartialGradients, factors: Sequence[float]) -> list[Tensor | None]:
    total: list[Tensor | None] = [None] * len(gradients[0])
    compiled: dict[torch.dtype, Addresses] = {}
    outputs: dict[torch.dtype, list[int]] = {}
    for_torch = []
    for position, column in enumerate(zip(*gradients, strict=True)):
        like = next((part for part in column if part is not None), None)
        if like is None:
            continue
        row = addresses(column)
        if row is None:
            for_torch.append(position)
            continue
        total[position] = out = torch.empty_like(like)
        if like.dtype not in compiled:
            compiled[like.dtype] = Addresses(like.dtype)
        compiled[like.dtype].append(row, like.numel())
        outputs.setdefault(like.dtype, []).append(out.data_ptr())
    for dtype, gradients_of_dtype in compiled.items():
        _fill(gradients_of_dtype, outputs[dtype], factors)
    by_torch = _sum_in_torch([[of_task[i] for i in for_torch] for of_task in gradients], factors)
    for position, part in zip(for_torch, by_torch, strict=True):
        total[position] = part
    return total


def _fill(gradients: Addresses, outputs: Sequence[int], factors: Sequence[float]) -> None:
    from optimizers.kernels.gradients import weighted_sum_range

    gradients.run(weighted_sum_range, np.array(factors, np.float64), np.array(outputs, np.uint64))


def _sum_in_torch(gradients: PartialGradients, factors: Sequence[float]) -> list[Tensor | None]:
    total: list[Tensor | None] = [None] * len(gradients[0])
    for of_task, factor in zip(gradients, factors, strict=True):
        parts = [(i, part) for i, part in enumerate(of_task) if part is not None]
        fresh = [(i, part) for i, part in parts if total[i] is None]
        known = [(total[i], part) for i, part in parts if total[i] is not None]
        if known:
            sums, added = zip(*known, strict=True)
            torch._foreach_add_(sums, added, alpha=factor)
        if fresh:
            indices, first = zip(*fresh, strict=True)
            for i, product in zip(indices, torch._foreach_mul(first, factor), strict=True):
                total[i] = product
    return total
