"""Averages over the processes of data-parallel training.

The reducer of DistributedDataParallel only sees ``Tensor.backward``, not the per-task ``autograd.grad``, and it would
sum the tasks. What has to be averaged are the task gradients themselves, before their Gramian: the mean of
the processes' Gramians is not the Gramian of the mean gradients.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET = 1 << 23


def world_size(group: Any = None) -> int:
    """Processes in the group (None: the default one); 1 where ``torch.distributed`` is not initialised.

    Example:
        >>> world_size()
        1
    """
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def average_(tensors: Sequence[Tensor], group: Any = None) -> None:
    """Replace each tensor by its mean over the processes, in buckets of one message.

    Args:
        tensors: same shapes, dtypes and order on every process.
        group: process group; None is the default one.
    """
    size = world_size(group)
    if size == 1:
        return
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (
            sum(t.numel() for t in bucket) + tensor.numel() > BUCKET
            or (tensor.dtype, tensor.device) != (bucket[0].dtype, bucket[0].device)
        ):
            _reduce(bucket, size, group)
            bucket = []
        bucket.append(tensor)
    if bucket:
        _reduce(bucket, size, group)


def averaged(values: Tensor, group: Any, device: torch.device) -> Tensor:
    """Mean of a small CPU tensor over the processes, sent from ``device``, where the backend can reach it."""
    if world_size(group) == 1:
        return values
    moved = values.to(device, copy=True)
    average_([moved], group)
    return moved.cpu()


def refuse_sharded(parameters: Iterable[Tensor]) -> None:
    """Refuse the sharded parameters of FSDP2.

    Raises:
        TypeError: for a DTensor.
    """
    module = sys.modules.get("torch.distributed.tensor")
    if module is not None and any(isinstance(p, module.DTensor) for p in parameters):
        raise TypeError(
            "FSDP2-sharded parameters (DTensor) are not supported: task gradients would have to be gathered "
            "outside FSDP's hooks. Use DistributedDataParallel, or shard the optimizer state only "
            "(torch.distributed.optim.ZeroRedundancyOptimizer)"
        )


def _reduce(tensors: list[Tensor], size: int, group: Any) -> None:
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat, group=group)
    flat /= size
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
