"""Models of 10 million shared parameters with three tasks, and what a contestant is given of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TASKS = 3


@dataclass(frozen=True)
class Forward:
    """What one forward pass gave; a contestant's backward may free it.

    Attributes:
        losses: of the three tasks.
        features: the trunk's output, from which they were computed.
    """

    losses: Sequence[Tensor]
    features: Tensor


Backward = Callable[[Forward], object]
"""Leaves its update in ``.grad``, which is None before."""


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        q, k, v = (
            part(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.between(x))))


class Problem:
    """A trunk with three light heads, and one batch.

    Args:
        trunk: maps (..., width) to the same shape.
        inputs: the batch.
    """

    def __init__(self, trunk: nn.Module, inputs: Tensor) -> None:
        width = inputs.shape[-1]
        self.trunk, self.inputs = trunk.to(inputs.device), inputs
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in (10, 4, 1)).to(inputs.device)
        rows = inputs.shape[:-1]
        self.targets = (
            torch.randint(10, rows, device=inputs.device),
            torch.rand(*rows, 4, device=inputs.device).round(),
            torch.randn(*rows, 1, device=inputs.device),
        )
        self.shared = list(trunk.parameters())
        self.of_tasks = [list(head.parameters()) for head in self.heads]
        self.parameters = [*self.shared, *self.heads.parameters()]

    def clear(self) -> None:
        """Drop every ``.grad``."""
        for parameter in self.parameters:
            parameter.grad = None

    def forward(self) -> Forward:
        """One forward pass, after :meth:`clear`."""
        self.clear()
        features = self.trunk(self.inputs)
        words, conditions, values = (head(features) for head in self.heads)
        losses = (
            F.cross_entropy(words.flatten(0, -2), self.targets[0].flatten()),
            F.binary_cross_entropy_with_logits(conditions, self.targets[1]),
            F.mse_loss(values, self.targets[2]),
        )
        return Forward(losses, features)

    @property
    def entries(self) -> int:
        """Of the shared parameters."""
        return sum(p.numel() for p in self.shared)


def few_large(device: str, *, quick: bool) -> Problem:
    """A perceptron of 5 layers of width 1,440; a batch of 512 rows."""
    width, layers, rows = (64, 3, 32) if quick else (1440, 5, 512)
    torch.manual_seed(0)
    trunk = nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(layers)))
    return Problem(trunk, torch.randn(rows, width, device=device))


def many_small(device: str, *, quick: bool) -> Problem:
    """A transformer of 32 blocks of width 160, 512 parameters; a batch of 8 sequences of 64 tokens."""
    width, layers, rows = (32, 2, (2, 8)) if quick else (160, 32, (8, 64))
    torch.manual_seed(0)
    return Problem(nn.Sequential(*(Block(width) for _ in range(layers))), torch.randn(*rows, width, device=device))


PROBLEMS: dict[str, Callable[..., Problem]] = {"few large": few_large, "many small": many_small}
