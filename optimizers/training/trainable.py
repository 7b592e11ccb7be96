"""The parameters of a step, which of them conflicts are resolved on, and what becomes of their ``.grad``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from optimizers.gradients._task_gradients import gradient
from optimizers.training.distributed import refuse_sharded

T = TypeVar("T")


@dataclass(frozen=True)
class Trainable:
    """Parameters that require a gradient, in the order of the parameter groups.

    Attributes:
        parameters: P tensors.
        shared: positions among them of those on which conflicts are resolved.
        others: positions of the rest, which follow the weighted sum.
    """

    parameters: list[Tensor]
    shared: list[int]
    others: list[int]

    def split(self, values: Sequence[T]) -> tuple[list[T], list[T]]:
        """The values, one a parameter, of the shared parameters and of the others."""
        return [values[i] for i in self.shared], [values[i] for i in self.others]

    def merged(self, shared: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Undoes :meth:`split`."""
        by_position = dict(zip(self.shared + self.others, [*shared, *others], strict=True))
        return [by_position[i] for i in range(len(self.parameters))]

    def gradient_of_sum(
        self, losses: Sequence[Tensor], coefficients: Sequence[float], weights: Sequence[float]
    ) -> list[Tensor | None]:
        """Σ c_i g_i on the shared parameters and Σ ω_i g_i on the others, by one backward each.

        The others first: the backward through the shared part then frees activations on its way.
        """
        name = "the weighted sum"
        shared, others = self.split(self.parameters)

        def outer(factors: Sequence[float]) -> list[Tensor]:
            return [torch.full_like(loss, c) for loss, c in zip(losses, factors, strict=True)]

        of_others = gradient(losses, others, outer(weights), keep=bool(shared), name=name)
        return self.merged(gradient(losses, shared, outer(coefficients), keep=False, name=name), of_others)


def trainable(param_groups: Iterable[dict[str, Any]], shared: Sequence[Tensor] | None) -> Trainable:
    """The trainable parameters of the groups.

    Args:
        param_groups: of a torch optimizer.
        shared: the shared parameters; None takes all.

    Raises:
        TypeError: for sharded parameters.
        ValueError: if no parameter requires a gradient, or one is complex or on the meta device.
    """
    parameters = [p for group in param_groups for p in group["params"] if p.requires_grad]
    refuse_sharded(parameters)
    if not parameters:
        raise ValueError("no parameter of the optimizer requires a gradient: all of them are frozen")
    check_numbers(parameters)
    known = None if shared is None else {id(p) for p in shared}
    positions: tuple[list[int], list[int]] = [], []
    for index, parameter in enumerate(parameters):
        positions[known is not None and id(parameter) not in known].append(index)
    return Trainable(parameters, *positions)


def add_to_gradients(parameters: Sequence[Tensor], update: Sequence[Tensor | None]) -> None:
    """Add to ``.grad``, which becomes the update's tensor where there was none; None adds nothing."""
    with torch.no_grad():
        for parameter, part in zip(parameters, update, strict=True):
            if parameter.grad is None:
                parameter.grad = part
            elif part is not None:
                parameter.grad += part


def check_numbers(parameters: Iterable[Tensor]) -> None:
    """Refuse parameters without gradients that can be compared.

    Raises:
        ValueError: naming the index of one that is complex or on the meta device.
    """
    for index, parameter in enumerate(parameters):
        if parameter.is_meta:
            raise ValueError(f"parameter {index} is on the meta device and has no numbers; materialize the model first")
        if parameter.is_complex():
            raise ValueError(f"parameter {index} is complex; only real parameters have gradients that can be compared")


def among(shared: Iterable[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """The shared parameters as a list.

    Raises:
        ValueError: if there are none, or some are not among ``parameters``.
    """
    chosen = list({id(p): p for p in shared}.values())
    if not chosen:
        raise ValueError("shared holds no parameter; None resolves conflicts on all of them")
    known = {id(p) for p in parameters}
    missing = sum(id(p) not in known for p in chosen)
    if missing:
        raise ValueError(f"{missing} of the {len(chosen)} shared parameters are not in the optimizer")
    return chosen


def clip(param_groups: Iterable[dict[str, Any]], norm: float | None, value: float | None) -> None:
    """Clip ``.grad`` of all parameters in place, by their joint norm or entry by entry.

    Args:
        param_groups: of a torch optimizer.
        norm: largest norm of all gradients together, or None.
        value: largest absolute value of an entry, or None.

    Example:
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
