"""One gradient a task: sequential ``autograd.grad``, which works with every model, precision and compiler.

Autograd may return one tensor for two parameters, or an expanded one; so nothing here or later writes into gradients.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

TaskGradients = list[list[Tensor]]
PartialGradients = list[list[Tensor | None]]
"""One list a task with a tensor a parameter, None where the task does not reach the parameter."""


def task_gradients(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> TaskGradients:
    """Gradients of each loss with respect to each parameter; frees the graph on the last loss.

    Args:
        losses: K scalar tensors that may share a graph.
        parameters: P tensors that require a gradient.

    Returns:
        K lists of P tensors, not to be written into; zeros where a loss does not reach a parameter.

    Raises:
        ValueError: for sparse or complex gradients, naming the task and the parameter's index.

    Example:
        >>> x, y = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
        >>> task_gradients([x * y, y**2], [x, y])
        [[tensor(3.), tensor(2.)], [tensor(0.), tensor(6.)]]
    """
    return filled(list(partial_gradients(losses, parameters)), parameters)


def partial_gradients(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> Iterator[list[Tensor | None]]:
    """As :func:`task_gradients`, one task after another, with None where a loss does not reach a parameter."""
    last = len(losses) - 1
    for task, loss in enumerate(losses):
        yield gradient([loss], parameters, keep=task < last, name=f"task {task}")


def gradient(
    losses: Sequence[Tensor],
    parameters: Sequence[Tensor],
    outer: Sequence[Tensor] | None = None,
    *,
    keep: bool,
    name: str,
) -> list[Tensor | None]:
    """Gradient of Σ ⟨outer_i, L_i⟩ in one backward; ``keep`` leaves the graph for another.

    Args:
        losses: tensors of any dtypes and devices; scalars unless ``outer`` is given.
        parameters: P tensors that require a gradient.
        outer: one tensor a loss, of its shape; ones by default.
        name: of the sum, for errors.

    Raises:
        ValueError: for sparse or complex gradients.
    """
    if not parameters:
        return []
    found = torch.autograd.grad(losses, parameters, outer, retain_graph=keep, allow_unused=True)
    for index, part in enumerate(found):
        if part is not None and (part.layout != torch.strided or part.is_complex()):
            kind = "complex" if part.is_complex() else "sparse"
            raise ValueError(
                f"gradient of {name} for parameter {index} is {kind}; only dense real "
                "gradients can be combined (use sparse=False in embeddings)"
            )
    return list(found)


def filled(gradients: PartialGradients, parameters: Sequence[Tensor]) -> TaskGradients:
    """Zeros in place of None."""
    return [
        [torch.zeros_like(p) if part is None else part for part, p in zip(of_task, parameters, strict=True)]
        for of_task in gradients
    ]


def any_reached(gradients: Sequence[Tensor | None]) -> bool:
    """Whether there is a gradient among them."""
    return any(part is not None for part in gradients)


def loss_values(losses: Sequence[Tensor]) -> Tensor:
    """The K losses as a float64 CPU tensor, after checking that each can be differentiated.

    Raises:
        ValueError: for no losses, or one that is not a dense real scalar or has no gradient, naming the task.
    """
    if isinstance(losses, Tensor) or len(losses) == 0:
        raise ValueError(
            "losses must be a non-empty sequence of scalar tensors, one a task, got "
            + (f"one tensor of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else "none")
        )
    values = []
    for task, loss in enumerate(losses):
        if not isinstance(loss, Tensor):
            raise ValueError(f"loss of task {task} must be a tensor, got {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(f"loss of task {task} must be a scalar, got shape {tuple(loss.shape)}")
        if loss.is_meta or loss.is_complex() or loss.layout != torch.strided:
            kind = "on the meta device" if loss.is_meta else "complex" if loss.is_complex() else "sparse"
            raise ValueError(f"loss of task {task} is {kind}; only a dense real number can be minimized")
        if not loss.requires_grad:
            raise ValueError(f"loss of task {task} has no gradient: it was computed without grad or detached")
        values.append(loss.detach().reshape(()).double())
    return torch.stack([value.to(values[0].device) for value in values]).cpu()


def refuse_reentrant_checkpoints(losses: Sequence[Tensor]) -> None:
    """Refuse graphs in which ``torch.utils.checkpoint`` hides parameters from ``autograd.grad``.

    Raises:
        ValueError: for activation checkpointing with ``use_reentrant=True``.
    """
    waiting = [loss.grad_fn for loss in losses]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "CheckpointFunctionBackward":
            raise ValueError(
                "a part of the model is checkpointed with use_reentrant=True, which hides its parameters from task "
                "gradients; pass use_reentrant=False (transformers: gradient_checkpointing_enable("
                'gradient_checkpointing_kwargs={"use_reentrant": False}))'
            )
        waiting.extend(parent for parent, _ in node.next_functions)
