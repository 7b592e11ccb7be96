"""One gradient a task: sequential ``autograd.grad``, which works with every model, precision and compiler."""

from collections.abc import Sequence

import torch
from torch import Tensor

TaskGradients = list[list[Tensor]]


def task_gradients(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> TaskGradients:
    """Gradients of each loss with respect to each parameter; frees the graph on the last loss.

    Args:
        losses: K scalar tensors that may share a graph.
        parameters: P tensors that require a gradient.

    Returns:
        K lists of P tensors; zeros where a loss does not reach a parameter.

    Raises:
        ValueError: for sparse or complex gradients, naming the task and the parameter's index.

    Example:
        >>> x, y = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
        >>> task_gradients([x * y, y**2], [x, y])
        [[tensor(3.), tensor(2.)], [tensor(0.), tensor(6.)]]
    """
    return [
        gradient(loss, parameters, keep=task < len(losses) - 1, name=f"task {task}") for task, loss in enumerate(losses)
    ]


def gradient(loss: Tensor, parameters: Sequence[Tensor], *, keep: bool, name: str) -> list[Tensor]:
    """Gradient of one loss, zeros where it does not reach a parameter; ``keep`` leaves the graph for another.

    Raises:
        ValueError: for sparse or complex gradients.
    """
    found = torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)
    for index, part in enumerate(found):
        if part is not None and (part.layout != torch.strided or part.is_complex()):
            kind = "complex" if part.is_complex() else "sparse"
            raise ValueError(
                f"gradient of {name} for parameter {index} is {kind}; only dense real "
                "gradients can be combined (use sparse=False in embeddings)"
            )
    return [torch.zeros_like(p) if part is None else part for part, p in zip(found, parameters, strict=True)]


def loss_values(losses: Sequence[Tensor]) -> Tensor:
    """The K losses as a float64 CPU tensor, after checking that each can be differentiated.

    Raises:
        ValueError: for no losses, or one that is not a scalar or has no gradient, naming the task.
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
        if not loss.requires_grad:
            raise ValueError(f"loss of task {task} has no gradient: it was computed without grad or detached")
        values.append(loss.detach().reshape(()).double())
    return torch.stack([value.to(values[0].device) for value in values]).cpu()
