"""How much memory the task gradients take."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class GradientMemory:
    """Memory of the task gradients of one step; print it.

    Attributes:
        tasks: K.
        entries: P, of all trainable parameters.
        set_bytes: of one gradient of all trainable parameters.
        peak_bytes: bound on what a step allocates for gradients: K sets, and one for their aggregate.

    Example:
        >>> import torch
        >>> print(gradient_memory(2, [torch.zeros(1024, 1024)]))
        2 task gradients × 1,048,576 entries: 8.0 MiB, and 4.0 MiB for their aggregate
    """

    tasks: int
    entries: int
    set_bytes: int

    @property
    def peak_bytes(self) -> int:
        return (self.tasks + 1) * self.set_bytes

    def __str__(self) -> str:
        sets, one = (f"{size / 2**20:,.1f} MiB" for size in (self.tasks * self.set_bytes, self.set_bytes))
        return f"{self.tasks} task gradients × {self.entries:,} entries: {sets}, and {one} for their aggregate"


def gradient_memory(tasks: int, parameters: Sequence[Tensor]) -> GradientMemory:
    """Memory of K gradients of the parameters.

    Raises:
        ValueError: for no task.
    """
    if tasks < 1:
        raise ValueError(f"tasks = {tasks} must be >= 1: the number of losses")
    return GradientMemory(
        tasks, sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters)
    )
