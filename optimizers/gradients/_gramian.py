"""The K×K Gramian of task gradients, accumulated in float64: all that aggregators need to know."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from optimizers.gradients.addresses import Addresses, addresses
from optimizers.gradients.arrays import KINDS, as_array
from optimizers.gradients.checks import check_gradients

CHUNK = 1 << 16
LONG = 1 << 12
"""Gradients of so many entries are worth the call of a compiled kernel."""


def gramian(gradients: Tensor) -> Tensor:
    r"""Gramian :math:`M = GG^⊤` of gradients ``G``, accumulated in float64.

    Args:
        gradients: (..., K, d) floating point, on any device.

    Returns:
        (..., K, K) float64, exactly symmetric.

    Raises:
        ValueError: if ``gradients`` has fewer than two dimensions, no task, or is not real floating.

    Example:
        >>> gramian(torch.tensor([[3.0, 4.0], [1e-30, 0.0]]))
        tensor([[2.5000e+01, 3.0000e-30],
                [3.0000e-30, 1.0000e-60]], dtype=torch.float64)
    """
    check_gradients(gradients)
    flat = gradients.shape[-1]
    if flat >= LONG and gradients.numel():
        problems = gradients.reshape(-1, *gradients.shape[-2:])
        if addresses(problems.flatten(0, 1).unbind()) is not None:
            gramians = [gramian_of_parameters([[row] for row in problem]) for problem in problems]
            return torch.stack(gramians).reshape(*gradients.shape[:-1], -1)
    if gradients.dim() == 2 and gradients.numel() <= CHUNK:
        array = as_array(gradients) if gradients.dtype in KINDS else None
        if array is not None:  # numpy is three times as fast on small ones
            array = array.astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):  # whoever needs finite numbers checks for them
                return torch.from_numpy(array @ array.T)
    if gradients.dtype == torch.float64 or gradients.numel() <= CHUNK:
        g = gradients.double()
        total = g @ g.transpose(-2, -1)
    else:
        total = gradients.new_zeros((*gradients.shape[:-1], gradients.shape[-2]), dtype=torch.float64)
        width = max(1, CHUNK * flat // gradients.numel())
        for first in range(0, flat, width):
            g = gradients[..., first : first + width].double()
            total += g @ g.transpose(-2, -1)
    return (total + total.transpose(-2, -1)) / 2


def gramian_of_parameters(gradients: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Gramian of K tasks whose gradients are given parameter by parameter, without joining them.

    Args:
        gradients: K sequences of one tensor a parameter, same shapes in each; may be on several devices. None
            counts as zeros.

    Returns:
        (K, K) float64 on the CPU, exactly symmetric.

    Example:
        >>> gramian_of_parameters([[torch.ones(2), torch.ones(1)], [torch.ones(2), -torch.ones(1)]])
        tensor([[3., 1.],
                [1., 3.]], dtype=torch.float64)
    """
    total = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    compiled: dict[torch.dtype, Addresses] = {}
    chunks: dict[tuple[torch.device, torch.dtype, tuple[int, ...]], _Chunks] = {}
    for column in zip(*gradients, strict=True):
        like = next((g for g in column if g is not None), None)
        if like is None:
            continue
        row = addresses(column)
        if row is not None:
            if like.dtype not in compiled:
                compiled[like.dtype] = Addresses(like.dtype)
            compiled[like.dtype].append(row, like.numel())
        else:
            tasks, tensors = zip(*((task, g) for task, g in enumerate(column) if g is not None), strict=True)
            key = like.device, like.dtype, tasks
            if key not in chunks:
                chunks[key] = _Chunks(like, len(tasks))
            chunks[key].append(_flattened(tensors))
    for gradients_of_dtype in compiled.values():
        total += _by_kernel(gradients_of_dtype)
    for (_, _, tasks), accumulated in chunks.items():
        index = torch.tensor(tasks)
        total[index[:, None], index] += accumulated.finish().cpu()
    return (total + total.T) / 2


def _by_kernel(gradients: Addresses) -> Tensor:
    from optimizers.kernels.gradients import gramian_range

    return torch.from_numpy(sum(gradients.run(gramian_range)))


class _Chunks:
    """Gramian of the same K tasks on one device, by torch, as many entries at a time as keep it busy.

    Args:
        like: a gradient.
        tasks: K.
    """

    def __init__(self, like: Tensor, tasks: int) -> None:
        self.width = CHUNK if like.is_cpu else 4 * CHUNK
        self.total = torch.zeros(tasks, tasks, dtype=torch.float64, device=like.device)
        self._waiting: list[list[Tensor]] = []
        self._entries = 0

    def append(self, gradients: Sequence[Tensor]) -> None:
        """Add those of one parameter, K vectors; short ones wait for others."""
        for pieces in zip(*(g.split(self.width) for g in gradients), strict=True):
            self._waiting.append(list(pieces))
            self._entries += pieces[0].numel()
            if self._entries >= self.width:
                self.finish()

    def finish(self) -> Tensor:
        """Add what waits; the (K, K) sum."""
        if self._waiting:
            chunk = torch.stack([torch.cat(pieces) for pieces in zip(*self._waiting, strict=True)]).double()
            self.total += chunk @ chunk.T
            self._waiting, self._entries = [], 0
        return self.total


def _flattened(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Vectors of the same entries in the same order: the one they have in memory, so that nothing is copied."""
    strides = tensors[0].stride()
    if any(t.stride() != strides for t in tensors):
        return [t.reshape(-1) for t in tensors]
    order = sorted(range(len(strides)), key=lambda dimension: -strides[dimension])
    return [t.permute(order).reshape(-1) for t in tensors]
