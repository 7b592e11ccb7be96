"""Refusals of gradients, Gramians and task weights that cannot be what they should be."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from optimizers.kernels.floats import TINY


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
    tolerance = gramian_tolerance(gramian.dtype)
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
    largest = (1 + tolerance) * norms[..., :, None] * norms[..., None, :] + TINY
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


@cache
def gramian_tolerance(dtype: torch.dtype) -> float:
    """√ε of the dtype: how far entries of a Gramian computed in it may be off, relative to ‖g_i‖‖g_j‖.

    Example:
        >>> gramian_tolerance(torch.float64) == 2.0**-26
        True
    """
    return torch.finfo(dtype).eps ** 0.5


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
