"""The K×K Gramian of task gradients, accumulated in float64: all that aggregators need to know."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optimizers.gradients.addresses import KINDS, Addresses, addresses

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
            found = [gramian_of_parameters([[row] for row in problem]) for problem in problems]
            return torch.stack(found).reshape(*gradients.shape[:-1], -1)
    if gradients.dim() == 2 and gradients.numel() <= CHUNK:
        array = _array(gradients)
        if array is not None:
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


def _array(gradients: Tensor) -> NDArray[np.float64] | None:
    """The same numbers for numpy, three times as fast on small ones; None where it cannot have them."""
    plain = type(gradients) is Tensor and gradients.is_cpu and not gradients.requires_grad
    if not plain or gradients.dtype not in KINDS:
        return None
    try:
        return gradients.numpy().astype(np.float64)
    except RuntimeError:  # inside torch.func transforms
        return None


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
    for found in compiled.values():
        total += _by_kernel(found)
    for (_, _, tasks), accumulated in chunks.items():
        index = torch.tensor(tasks)
        total[index[:, None], index] += accumulated.finish().cpu()
    return (total + total.T) / 2


def _by_kernel(found: Addresses) -> Tensor:
    from optimizers.kernels.gradients import gramian_range

    return torch.from_numpy(sum(found.run(gramian_range)))


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


def check_gradients(gradients: Tensor) -> None:
    """Refuse what is not a (..., K, d) real floating-point tensor with K ≥ 1.

    Raises:
        ValueError: naming the shape or dtype.
    """
    check_numbers(gradients, "gradients")
    if gradients.dim() < 2 or gradients.shape[-2] == 0:
        raise ValueError(
            f"gradients must have shape (..., K, d) with K >= 1, got {tuple(gradients.shape)}; "
            "for one problem stack the K task gradients as rows"
        )


def check_numbers(tensor: Tensor, name: str) -> None:
    """Refuse what is not a dense real floating-point tensor with numbers in it.

    Raises:
        ValueError: naming the type, dtype, layout or device.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.layout != torch.strided:
        raise ValueError(f"{name} must be dense, got layout {tensor.layout}; use .to_dense()")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be real floating point, got {tensor.dtype}")
    if tensor.is_meta:
        raise ValueError(f"{name} must hold numbers, got a tensor on the meta device")


def check_gramian(gramian: Tensor) -> Tensor:
    """Return the Gramian as float64 after checking that its entries can be inner products.

    Raises:
        ValueError: naming the shape, dtype, the batch entry and the task with a non-finite or negative
            diagonal, or the pair of tasks whose entry is not symmetric or exceeds ‖g_i‖‖g_j‖.
    """
    check_numbers(gramian, "gramian")
    if gramian.dim() < 2 or gramian.shape[-1] != gramian.shape[-2] or gramian.shape[-1] == 0:
        raise ValueError(f"gramian must have shape (..., K, K) with K >= 1, got {tuple(gramian.shape)}")
    tolerance = torch.finfo(gramian.dtype).eps ** 0.5
    gramian = gramian.double()
    finite = gramian.isfinite()
    if not finite.all():
        entry = tuple((~finite).nonzero()[0].tolist())
        diagonal = (~finite.diagonal(dim1=-2, dim2=-1)).nonzero()
        tasks = sorted({index[-1] for index in diagonal.tolist()}) or list(entry[-2:])
        problem = f" of problem {entry[:-2]}" if len(entry) > 2 else ""
        raise ValueError(
            f"gradient of task {', '.join(map(str, tasks))}{problem} is not finite "
            f"(Gramian entry {list(entry[-2:])} is {gramian[entry].item()})"
        )
    diagonal = gramian.diagonal(dim1=-2, dim2=-1)
    if (diagonal < 0).any():
        entry = tuple((diagonal < 0).nonzero()[0].tolist())
        raise ValueError(
            f"gramian has a negative diagonal entry {diagonal[entry].item()} for task {entry[-1]}; "
            "a squared norm cannot be negative"
        )
    norms = diagonal.sqrt()
    largest = (1 + tolerance) * norms[..., :, None] * norms[..., None, :] + torch.finfo(torch.float64).tiny
    impossible = (gramian.abs() > largest) | ((gramian - gramian.mT).abs() > tolerance * largest)
    if impossible.any():
        entry = tuple(impossible.nonzero()[0].tolist())
        i, j = entry[-2:]
        norm_i, norm_j = norms[entry[:-2]][[i, j]].tolist()
        raise ValueError(
            f"gramian entries [{i}, {j}] = {gramian[entry].item():.6g} and [{j}, {i}] = "
            f"{gramian.mT[entry].item():.6g} cannot be an inner product of gradients with norms "
            f"{norm_i:.6g} and {norm_j:.6g}; pass G Gᵀ"
        )
    return gramian


def check_task_weights(task_weights: Tensor | Sequence[float] | None, like: Tensor) -> Tensor:
    """Task weights as float64 of shape (..., K), ones by default.

    Args:
        task_weights: K or (..., K) non-negative numbers, not all zero.
        like: a (..., K, K) Gramian whose K and device are taken.

    Raises:
        ValueError: naming the value and the task index.
    """
    tasks = like.shape[-1]
    if task_weights is None:
        return torch.ones(tasks, dtype=torch.float64, device=like.device)
    if isinstance(task_weights, Tensor) and (
        task_weights.is_complex() or task_weights.is_meta or task_weights.layout != torch.strided
    ):
        raise ValueError(
            f"task_weights must be dense real numbers, got {task_weights.dtype} {task_weights.layout} on "
            f"{task_weights.device}"
        )
    try:
        weights = torch.as_tensor(task_weights, dtype=torch.float64, device=like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"task_weights must be numbers, one a task, got {task_weights!r} ({error})") from None
    if weights.dim() == 0 or weights.shape[-1] != tasks:
        raise ValueError(
            f"task_weights must have one entry for each of the {tasks} tasks, got shape {tuple(weights.shape)}"
        )
    bad = ~weights.isfinite() | (weights < 0)
    if bad.any():
        entry = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"task_weights[{entry[-1]}] = {weights[entry].item()} must be finite and >= 0")
    if (weights.sum(-1) == 0).any():
        raise ValueError("task_weights are all zero; at least one task must have a positive weight")
    return weights
