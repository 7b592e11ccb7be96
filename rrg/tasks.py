"""The tasks that are trained together, and their losses."""

from torch import Tensor
from torch.nn import functional as F

from rrg.model import PAD, Output

TASKS = ("rg", "dc")
"""Report generation and disease classification, in the order of losses, weights and gradient logs."""


def report_loss(report_logits: Tensor, input_ids: Tensor) -> Tensor:
    """Mean cross-entropy, in nats a token, of every next token of the reports; padding is left out.

    Args:
        report_logits: (B, L, V) floating point.
        input_ids: (B, L) int64, the reports that the logits were computed from.

    Returns:
        () tensor.

    Example:
        >>> import torch
        >>> ids = torch.tensor([[1, 7, 2, 0]])
        >>> report_loss(torch.zeros(1, 4, 10), ids).exp()  # uniform over 10 tokens
        tensor(10.)
    """
    return F.cross_entropy(report_logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten(), ignore_index=PAD)


def condition_loss(condition_logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, over studies and conditions.

    Args:
        condition_logits: (B, C, S) floating point.
        labels: (B, C) int64 states in 0 … S−1.

    Returns:
        () tensor.

    Example:
        >>> import torch
        >>> condition_loss(torch.zeros(2, 14, 4), torch.zeros(2, 14, dtype=torch.int64)).exp()
        tensor(4.0000)
    """
    return F.cross_entropy(condition_logits.flatten(0, 1), labels.flatten())


def task_losses(output: Output, batch: dict[str, Tensor]) -> list[Tensor]:
    """Losses in the order of :data:`TASKS`.

    Args:
        output: the model's predictions for the batch.
        batch: with ``input_ids`` (B, L) and ``labels`` (B, C).

    Returns:
        two () tensors.

    Example:
        >>> import torch
        >>> output = Output(torch.zeros(1, 3, 10), torch.zeros(1, 14, 4))
        >>> batch = {"input_ids": torch.tensor([[1, 7, 2]]), "labels": torch.ones(1, 14).long()}
        >>> [round(loss.exp().item()) for loss in task_losses(output, batch)]
        [10, 4]
    """
    return [
        report_loss(output.report_logits, batch["input_ids"]),
        condition_loss(output.condition_logits, batch["labels"]),
    ]
