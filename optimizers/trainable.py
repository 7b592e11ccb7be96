"""The parameters of a step, and which of them conflicts are resolved on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from optimizers.distributed import refuse_sharded
from optimizers.task_gradients import gradient

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
        """Σ c_i g_i on the shared parameters and Σ ω_i g_i on the others, by one backward each."""
        name = "the weighted sum"
        shared, others = self.split(self.parameters)
        return self.merged(
            gradient(losses, shared, coefficients, keep=bool(others), name=name),
            gradient(losses, others, weights, keep=False, name=name),
        )


def trainable(param_groups: Iterable[dict[str, Any]], shared: set[int] | None) -> Trainable:
    """The trainable parameters of the groups.

    Args:
        param_groups: of a torch optimizer.
        shared: identities of the shared parameters; None takes all.

    Raises:
        TypeError: for sharded parameters.
        ValueError: if no parameter requires a gradient.
    """
    parameters = [p for group in param_groups for p in group["params"] if p.requires_grad]
    refuse_sharded(parameters)
    if not parameters:
        raise ValueError("no parameter of the optimizer requires a gradient: all of them are frozen")
    positions: tuple[list[int], list[int]] = [], []
    for index, parameter in enumerate(parameters):
        positions[shared is not None and id(parameter) not in shared].append(index)
    return Trainable(parameters, *positions)


def identities(shared: Iterable[Tensor], parameters: Sequence[Tensor]) -> set[int]:
    """Identities of the shared parameters.

    Raises:
        ValueError: if there are none, or some are not among ``parameters``.
    """
    known = {id(p) for p in parameters}
    found = {id(p) for p in shared}
    if not found:
        raise ValueError("shared holds no parameter; None resolves conflicts on all of them")
    if found - known:
        raise ValueError(f"{len(found - known)} of the {len(found)} shared parameters are not in the optimizer")
    return found
