"""A small model of two tasks, for the tests of the training step."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import Tensor, nn

from optimizers import MultiTaskOptimizer


class TwoHeads(nn.Module):
    """A shared trunk with two heads, so that each task leaves a part unreached."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.report, self.disease = nn.Linear(4, 8), nn.Linear(8, 5), nn.Linear(8, 3)

    def losses(self, x: Tensor) -> list[Tensor]:
        h = self.trunk(x).tanh()
        return [self.report(h).square().mean(), (self.disease(h) - 1).square().mean()]


@pytest.fixture
def model() -> TwoHeads:
    return TwoHeads()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 4)


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(p, q) for p, q in zip(a, b, strict=True))  # type: ignore[arg-type]
    return a == b


@contextmanager
def _unchanged(model: nn.Module, optimizer: MultiTaskOptimizer) -> Iterator[None]:
    def everything() -> tuple:
        parameters = [p.detach().clone() for p in model.parameters()]
        grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        return parameters, grads, copy.deepcopy(optimizer.state_dict())

    before = everything()
    yield
    assert same(everything(), before)


@pytest.fixture
def unchanged() -> Callable[[nn.Module, MultiTaskOptimizer], AbstractContextManager[None]]:
    """Asserts that parameters, gradients and optimizer state leave the block as they entered it."""
    return _unchanged
