"""Clipping of the aggregate, right before the wrapped optimizer's step."""

from collections.abc import Iterable
from typing import Any

from torch.nn.utils import clip_grad_norm_, clip_grad_value_


def clip(param_groups: Iterable[dict[str, Any]], norm: float | None, value: float | None) -> None:
    """Clip ``.grad`` of all parameters in place, by their joint norm or entry by entry.

    Args:
        param_groups: of a torch optimizer.
        norm: largest norm of all gradients together, or None.
        value: largest absolute value of an entry, or None.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.zeros(2))
        >>> x.grad = torch.tensor([3.0, 4.0])
        >>> clip([{"params": [x]}], norm=2.5, value=None)
        >>> x.grad
        tensor([1.5000, 2.0000])
    """
    parameters = [p for group in param_groups for p in group["params"]]
    if norm is not None:
        clip_grad_norm_(parameters, norm)
    if value is not None:
        clip_grad_value_(parameters, value)
