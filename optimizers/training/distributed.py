"""Averages over the processes of data-parallel training.

The reducer of DistributedDataParallel only sees ``Tensor.backward``, not the per-task ``autograd.grad``, and it would
sum the tasks. What has to be averaged are the task gradients themselves, before their Gramian: the mean of
the processes' Gramians is not the Gramian of the mean gradients. (Gradients of ``features`` are rows of one joint
representation; their Gramians do add up.) The first process's coefficients are taken by all, and every process must
make the same calls.

A model wrapped in DistributedDataParallel works with and without ``find_unused_parameters``,
``gradient_as_bucket_view`` and ``no_sync``; its reducer and its communication hooks see nothing of these steps, and
``Tensor.backward`` may be used between them, except with ``static_graph=True``. The optimizer's state may be sharded
(``ZeroRedundancyOptimizer``). Sharded parameters (FSDP) and tensor parallelism are refused; a model must not be sharded
after the optimizer was built.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from optimizers.gradients._task_gradients import PartialGradients

BUCKET = 1 << 23


def world_size(group: Any = None) -> int:
    """Processes in the group (None: the default one); 1 where ``torch.distributed`` is not initialised.

    Raises:
        ValueError: if this process is not in the group.

    Example:
        >>> world_size()
        1
    """
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    size = dist.get_world_size(group)
    if size < 1:
        raise ValueError("this process is not in process_group; pass a group that it belongs to")
    return size


def averages(tensors: Sequence[Tensor], group: Any = None) -> list[Tensor]:
    """Mean of each tensor over the processes, in messages of up to ``BUCKET`` elements.

    Args:
        tensors: same shapes, dtypes and order on every process.
        group: process group; None is the default one.

    Returns:
        New tensors; the given ones where there is one process only.
    """
    size = world_size(group)
    if size == 1:
        return list(tensors)
    means: list[Tensor] = []
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (
            sum(t.numel() for t in bucket) + tensor.numel() > BUCKET
            or (tensor.dtype, tensor.device) != (bucket[0].dtype, bucket[0].device)
        ):
            means += _reduced(bucket, size, group)
            bucket = []
        bucket.append(tensor)
    return means + _reduced(bucket, size, group) if bucket else means


def averaged(values: Tensor, group: Any, device: torch.device) -> Tensor:
    """Mean of a small CPU tensor over the processes, sent from ``device``, where the backend can reach it."""
    return averages([values.to(device)], group)[0].to(values.device)


def average_gradients(gradients: PartialGradients, parameters: Sequence[Tensor], group: Any) -> None:
    """Replace the task gradients in the lists by their mean over the processes.

    None remains where a task reaches the parameter on no process; elsewhere it counts as zeros.
    """
    if world_size(group) == 1:
        return
    reached_here = torch.tensor([[part is not None for part in of_task] for of_task in gradients], dtype=torch.float64)
    anywhere = averaged(reached_here, group, parameters[0].device) > 0
    for of_task, reached in zip(gradients, anywhere.tolist(), strict=True):
        indices = [i for i, yes in enumerate(reached) if yes]
        known = [torch.zeros_like(parameters[i]) if (part := of_task[i]) is None else part for i in indices]
        for i, mean in zip(indices, averages(known, group), strict=True):
            of_task[i] = mean


def from_first(tensor: Tensor, group: Any, device: torch.device) -> Tensor:
    """The first process's tensor, on every process; sent from ``device``.

    Aggregators that draw random numbers, or that run on unequal hardware, would let the processes drift apart.
    """
    if world_size(group) == 1:
        return tensor
    sent = tensor.to(device, copy=True)
    dist.broadcast(sent, 0 if group is None else dist.get_global_rank(group, 0), group)
    return sent.to(tensor.device)


def refuse_sharded(parameters: Iterable[Tensor]) -> None:
    """Refuse the sharded parameters of FSDP.

    Raises:
        TypeError: for a DTensor, or a parameter that FSDP1 has flattened.
    """
    module = sys.modules.get("torch.distributed.tensor")
    for parameter in parameters:
        sharded = module is not None and isinstance(parameter, module.DTensor)
        if sharded or getattr(parameter, "_fsdp_flattened", False):
            raise TypeError(
                f"{'FSDP2-sharded parameters (DTensor)' if sharded else 'FSDP-sharded parameters'} are not supported: "
                "task gradients would have to be gathered outside FSDP's hooks. Use DistributedDataParallel, or shard "
                "the optimizer state only (torch.distributed.optim.ZeroRedundancyOptimizer)"
            )


def _reduced(tensors: list[Tensor], size: int, group: Any) -> list[Tensor]:
    """Divides before it sums, as DistributedDataParallel does, so that half precision does not overflow."""
    flat = torch.cat([t.reshape(-1) for t in tensors]).div_(size)
    dist.all_reduce(flat, group=group)
    parts = flat.split([t.numel() for t in tensors])
    return [part.view_as(tensor) for tensor, part in zip(tensors, parts, strict=True)]
