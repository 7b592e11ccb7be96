"""What several processes need: their start, their share of a batch, and embeddings of the joint batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_apart: ContextVar[bool] = ContextVar("_apart", default=False)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized() and not _apart.get()


def rank() -> int:
    """This process's number, 0 without ``torch.distributed``."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """Number of processes, 1 without ``torch.distributed``."""
    return dist.get_world_size() if _joined() else 1


@contextmanager
def alone() -> Iterator[None]:
    """Within, this process is the only one: what it computes needs nothing of the others, who do something else."""
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that ``torchrun`` started (NCCL on GPUs, gloo on CPUs); does nothing without it."""
    if "WORLD_SIZE" not in os.environ or not dist.is_available() or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """This process's own GPU under ``torchrun``."""
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        slope = slope.contiguous()
        dist.all_reduce(slope)
        return slope.chunk(world_size())[rank()]


def gather(local: Tensor) -> Tensor:
    """Rows of all processes, in their order; differentiable: each process's gradient collects what every process's loss
    says of its rows.

    Args:
        local: (B, ...) of one shape on all processes.

    Returns:
        (B·world size, ...).

    Example:
        >>> gather(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if world_size() == 1:
        return local
    if local.requires_grad:
        return _Gather.apply(local)
    with torch.no_grad():
        return _Gather.apply(local)


def mean_over_processes(value: float, device: torch.device) -> float:
    """Mean of one number over the processes."""
    if world_size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / world_size()


def barrier() -> None:
    """Wait for the other processes."""
    if world_size() > 1:
        dist.barrier()
