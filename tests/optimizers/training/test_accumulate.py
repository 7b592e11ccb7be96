"""Micro-batches: accumulate() gives the step of the joint batch."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad, MultiTaskOptimizer, linear, pcgrad

WEIGHTS = [1.0, 4.0]
TOLERANCE = 1e-13
"""Relative, in float64: a mean of means rounds otherwise than a mean, by a few ε."""


def gradient(model: nn.Module) -> Tensor:
    return parameters_to_vector([p.grad for p in model.parameters()])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.fixture(autouse=True)
def _double(model: nn.Module) -> None:
    model.double()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(12, 4, dtype=torch.float64)


@pytest.mark.parametrize("parts", [2, 3, 12])
@pytest.mark.parametrize("aggregator", ["came-grad", linear, pcgrad])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_micro_batches_equal_the_joint_batch(
    model: nn.Module, x: Tensor, parts: int, aggregator: Callable, scale: float
) -> None:
    def build(model: nn.Module) -> MultiTaskOptimizer:
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        return CAMEGrad(inner) if aggregator == "came-grad" else MultiTaskOptimizer(inner, aggregator)

    twin = copy.deepcopy(model)
    joint, split = build(twin), build(model)
    joint.backward(twin.losses(x), WEIGHTS)
    *first, last = x.chunk(parts)
    for part in first:
        split.accumulate([loss / parts * scale for loss in model.losses(part)], WEIGHTS, scale=scale)
        assert all(p.grad is None for p in model.parameters())
    split.backward([loss / parts * scale for loss in model.losses(last)], WEIGHTS, scale=scale)
    assert distance(gradient(model), scale * gradient(twin)) <= TOLERANCE
    assert split.last.losses.tolist() == pytest.approx(joint.last.losses.tolist(), rel=TOLERANCE)
    assert distance(split.last.gramian, joint.last.gramian) <= TOLERANCE


def test_the_last_micro_batch_may_come_with_the_step(model: nn.Module, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    joint, split = (CAMEGrad(torch.optim.SGD(m.parameters(), lr=0.1)) for m in (twin, model))
    for _ in range(3):
        joint.step(twin.losses(x), WEIGHTS)
        split.accumulate([loss / 2 for loss in model.losses(x[:6])], WEIGHTS)
        split.step([loss / 2 for loss in model.losses(x[6:])], WEIGHTS)
    ends = (parameters_to_vector(m.parameters()).detach() for m in (model, twin))
    assert distance(*ends) <= TOLERANCE


def test_backward_for_each_micro_batch_sums_aggregates(model: nn.Module, x: Tensor) -> None:
    """Negative control: that is another update, as the documentation says."""
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.backward(model.losses(x), WEIGHTS)
    joint = gradient(model)
    optimizer.zero_grad()
    parts = []
    for part in x.chunk(2):
        optimizer.backward([loss / 2 for loss in model.losses(part)], WEIGHTS)
        parts.append(gradient(model).clone())
    assert distance(parts[1], joint) > 1e-3
    optimizer.zero_grad()
    optimizer.backward([loss / 2 for loss in model.losses(x[6:])], WEIGHTS)
    assert distance(gradient(model), parts[1] - parts[0]) <= TOLERANCE


def test_steps_of_micro_batches_add_to_the_gradient(model: nn.Module, x: Tensor) -> None:
    """accumulate + backward, twice without zero_grad: two aggregates, each of its own micro-batches."""
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    updates = []
    for halves in (x[:6].chunk(2), x[6:].chunk(2)):
        optimizer.zero_grad()
        optimizer.backward(model.losses(torch.cat(halves)))
        updates.append(gradient(model).clone())
    optimizer.zero_grad()
    for halves in (x[:6].chunk(2), x[6:].chunk(2)):
        optimizer.accumulate([loss / 2 for loss in model.losses(halves[0])])
        optimizer.backward([loss / 2 for loss in model.losses(halves[1])])
    assert distance(gradient(model), updates[0] + updates[1]) <= TOLERANCE


def test_a_parameter_that_one_micro_batch_reaches_counts(model: nn.Module, x: Tensor) -> None:
    """The head of a task whose loss is constant in one micro-batch."""
    extra = nn.Parameter(torch.ones(3, dtype=torch.float64))
    parameters = [*model.parameters(), extra]
    for order in (1, -1):
        optimizer = MultiTaskOptimizer(torch.optim.SGD(parameters, lr=0.1), linear)
        optimizer.zero_grad()
        first, second = [model.losses(x[:6]), [model.losses(x[6:])[0], extra.square().sum()]][::order]
        optimizer.accumulate(first)
        optimizer.backward(second)
        assert extra.grad.tolist() == [2.0] * 3


def test_zero_grad_forgets_micro_batches(model: nn.Module, x: Tensor) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.backward(model.losses(x))
    expected = gradient(model).clone()
    optimizer.accumulate([100 * loss for loss in model.losses(x)])
    optimizer.zero_grad()
    optimizer.backward(model.losses(x))
    assert torch.equal(gradient(model), expected)


def test_loading_a_state_forgets_micro_batches(model: nn.Module, x: Tensor) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    state = optimizer.state_dict()
    optimizer.accumulate(model.losses(x))
    optimizer.load_state_dict(state)
    optimizer.backward(model.losses(x))
    assert optimizer.last.losses.tolist() == [loss.item() for loss in model.losses(x)]


def test_stepping_over_waiting_micro_batches_is_refused(model: nn.Module, x: Tensor, unchanged: Callable) -> None:
    """A loop that only accumulates would step without a gradient, or with a stale one."""
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()))
    optimizer.accumulate(model.losses(x))
    with unchanged(model, optimizer), pytest.raises(RuntimeError, match=r"wait for a backward: call backward\(\)"):
        optimizer.step()
    optimizer.backward(model.losses(x))
    optimizer.step()


def test_micro_batches_of_one_step_must_match(model: nn.Module, x: Tensor, unchanged: Callable) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()))
    for method in (optimizer.accumulate, optimizer.backward, optimizer.step):
        optimizer.zero_grad()
        optimizer.accumulate(model.losses(x), WEIGHTS)
        with unchanged(model, optimizer):
            with pytest.raises(ValueError, match="the same tasks: got 1 losses after 2"):
                method(model.losses(x)[:1])
            with pytest.raises(ValueError, match=r"task_weights: got \[1.0, 1.0\] after \[1.0, 4.0\]"):
                method(model.losses(x))
            model.trunk.requires_grad_(False)
            with pytest.raises(ValueError, match="trainable parameters changed between the micro-batches"):
                method(model.losses(x), WEIGHTS)
            model.trunk.requires_grad_(True)
    optimizer.backward(model.losses(x), WEIGHTS)
    assert optimizer.last.losses.tolist() == [2 * loss.item() for loss in model.losses(x)]


def test_accumulating_frees_the_graph(model: nn.Module, x: Tensor) -> None:
    losses = model.losses(x)
    CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1)).accumulate(losses)
    with pytest.raises(RuntimeError, match="second time"):
        losses[1].backward()


class Failing(torch.autograd.Function):
    """Runs out of memory on the way back."""

    @staticmethod
    def forward(ctx: object, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        raise MemoryError("on the way back")


def test_a_micro_batch_that_was_half_added_is_not_stepped(model: nn.Module, x: Tensor) -> None:
    """Task 0 of the second micro-batch was added when task 1 failed: the step starts anew, and says so."""
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.backward(model.losses(x), WEIGHTS)
    expected = gradient(model).clone()
    optimizer.zero_grad()

    def failing() -> list[Tensor]:
        first, second = model.losses(x)
        return [first, Failing.apply(second)]

    with pytest.raises(MemoryError):
        optimizer.accumulate(failing(), WEIGHTS)
    optimizer.accumulate([loss / 2 for loss in model.losses(x[:6])], WEIGHTS)  # nothing was there to be spoiled
    with pytest.raises(MemoryError):
        optimizer.accumulate(failing(), WEIGHTS)
    for method in (optimizer.accumulate, optimizer.backward, optimizer.step):
        with pytest.raises(RuntimeError, match=r"half added: call zero_grad\(\) and start the step anew"):
            method(model.losses(x), WEIGHTS)
    optimizer.zero_grad()
    optimizer.accumulate([loss / 2 for loss in model.losses(x[:6])], WEIGHTS)
    optimizer.backward([loss / 2 for loss in model.losses(x[6:])], WEIGHTS)
    assert distance(gradient(model), expected) <= TOLERANCE
