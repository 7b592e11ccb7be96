"""What a step allocates: K gradient sets and one more, however it is called."""

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from optimizers import CAMEGrad, MultiTaskOptimizer, linear

TASKS = 5
WIDTH = 1024
SLACK = 0.5
"""Of a gradient set: chunks of the Gramian, activations, scalars."""


class Wide(nn.Module):
    """Two matrices, of which the second lies transposed in memory, as channels_last does; heads that weigh nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(WIDTH, 2 * WIDTH) / WIDTH)
        self.second = nn.Parameter(torch.randn(WIDTH, 2 * WIDTH).t() / WIDTH)

    def losses(self, x: Tensor) -> list[Tensor]:
        h = (x @ self.first).tanh() @ self.second
        return [(h - task).square().mean() for task in range(TASKS)]


def peak(function: Callable[[], object]) -> int:
    """Most bytes allocated at a time within the call beyond those before it, as the allocator reports them."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        function()
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


@pytest.fixture
def wide() -> Wide:
    return Wide()


def sets(bytes_: int, optimizer: MultiTaskOptimizer) -> float:
    return bytes_ / optimizer.memory(TASKS).set_bytes


def test_the_probe_sees_what_is_allocated() -> None:
    def two_then_one() -> None:
        a, b = torch.ones(1000), torch.ones(500)
        del a, b
        torch.ones(1000)

    assert peak(two_then_one) == 6000


@pytest.mark.parametrize("build", [CAMEGrad, lambda inner: MultiTaskOptimizer(inner, linear)])
def test_backward(wide: Wide, build: Callable) -> None:
    optimizer = build(torch.optim.SGD(wide.parameters(), lr=0.1))
    for _ in range(2):
        losses = wide.losses(torch.randn(1, WIDTH))
        optimizer.zero_grad()
        most = sets(peak(lambda losses=losses: optimizer.backward(losses)), optimizer)
        assert TASKS <= most <= TASKS + 1 + SLACK


def test_a_step_drops_the_gradient_before_it_makes_the_next(wide: Wide) -> None:
    """No zero_grad between, as in the authors' trainer."""
    optimizer = CAMEGrad(torch.optim.SGD(wide.parameters(), lr=0.1))
    most = peak(lambda: [optimizer.step(wide.losses(torch.randn(1, WIDTH))) for _ in range(2)])
    assert sets(most, optimizer) <= TASKS + 1 + SLACK


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_scaled_and_accumulated(wide: Wide, scale: float) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(wide.parameters(), lr=0.1))
    batches = [[scale * loss for loss in wide.losses(torch.randn(1, WIDTH))] for _ in range(3)]

    def step() -> None:
        for losses in batches[:-1]:
            optimizer.accumulate(losses, scale=scale)
        optimizer.backward(batches[-1], scale=scale)

    assert sets(peak(step), optimizer) <= TASKS + 1 + SLACK
    losses = [scale * loss for loss in wide.losses(torch.randn(1, WIDTH))]
    optimizer.zero_grad()
    assert sets(peak(lambda: optimizer.backward(losses, scale=scale)), optimizer) <= TASKS + 1 + SLACK


def test_a_reused_step_makes_one_gradient(wide: Wide) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(wide.parameters(), lr=0.1), refresh_every=2)
    optimizer.step(wide.losses(torch.randn(1, WIDTH)))
    optimizer.zero_grad()
    losses = wide.losses(torch.randn(1, WIDTH))
    assert sets(peak(lambda: optimizer.backward(losses)), optimizer) <= 2 + SLACK


def test_the_sum_takes_the_place_of_what_it_was_made_of() -> None:
    """With many parameters, the update needs next to no memory beside the K task gradients."""
    parameters = [nn.Parameter(torch.randn(WIDTH, 64)) for _ in range(64)]
    optimizer = CAMEGrad(torch.optim.SGD(parameters, lr=0.1))

    def losses() -> list[Tensor]:
        x = torch.randn(1, WIDTH)
        products = [x @ p for p in parameters]
        return [sum((h - task).square().mean() for h in products) for task in range(TASKS)]

    batch = losses()
    assert TASKS <= sets(peak(lambda: optimizer.backward(batch)), optimizer) <= TASKS + 0.1


def test_the_premise_of_a_transposed_gradient(wide: Wide) -> None:
    first, second = torch.autograd.grad(wide.losses(torch.randn(1, WIDTH))[0], list(wide.parameters()))
    assert first.is_contiguous()
    assert not second.is_contiguous()


def test_two_sets_more_are_found(wide: Wide) -> None:
    """Negative control: a copy of all task gradients, which an observer keeps, breaks the bound."""
    kept: list[Tensor] = []
    optimizer = CAMEGrad(
        torch.optim.SGD(wide.parameters(), lr=0.1),
        observer=lambda gradients, M: kept.extend(part.clone() for part in gradients[0] + gradients[1]),
    )
    losses = wide.losses(torch.randn(1, WIDTH))
    assert sets(peak(lambda: optimizer.backward(losses)), optimizer) > TASKS + 2


def test_it_is_printed_on_request(wide: Wide) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(wide.parameters(), lr=0.1))
    memory = optimizer.memory(5)
    assert str(memory) == "5 task gradients × 4,194,304 entries: 80.0 MiB, and 16.0 MiB for their aggregate"
    assert memory.peak_bytes == 6 * 16 * 2**20
    wide.second.requires_grad_(False)
    assert optimizer.memory(1).entries == 2 * WIDTH**2
    with pytest.raises(ValueError, match="tasks = 0 must be >= 1"):
        optimizer.memory(0)
