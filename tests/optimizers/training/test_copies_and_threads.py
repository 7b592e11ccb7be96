"""Pickles, deep copies, threads and deterministic algorithms."""

import copy
import pickle
from collections.abc import Iterator
from functools import partial
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad, MultiTaskOptimizer, cagrad, linear, mgda, pcgrad

WEIGHTS = [1.0, 4.0]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"refresh_every": 3, "ema": 0.5, "clip_value": 0.1},
    {"shared": "trunk", "on_nonfinite": "skip", "on_solver_failure": "linear"},
]


def build(model: nn.Module, options: dict[str, Any]) -> CAMEGrad:
    shared = {"shared": model.trunk.parameters()} if "shared" in options else {}
    return CAMEGrad(torch.optim.AdamW(model.parameters(), lr=1e-2), rho=0.3, **{**options, **shared})


def deep(pair: tuple[nn.Module, CAMEGrad]) -> tuple[nn.Module, CAMEGrad]:
    return copy.deepcopy(pair)


def pickled(pair: tuple[nn.Module, CAMEGrad]) -> tuple[nn.Module, CAMEGrad]:
    return pickle.loads(pickle.dumps(pair))


def vector(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("copied", [deep, pickled])
@pytest.mark.parametrize("pending", [False, True])
def test_a_copy_goes_on_by_itself_in_the_same_way(
    model: nn.Module, x: Tensor, options: dict[str, Any], copied: Any, pending: bool
) -> None:
    """With a micro-batch that waits, reused coefficients, an average and the split of the parameters."""
    optimizer = build(model, options)
    for step in range(2):
        optimizer.step(model.losses(x + step), WEIGHTS)
    if pending:
        optimizer.accumulate(model.losses(x), WEIGHTS)
    twin, resumed = copied((model, optimizer))
    assert resumed.last.losses.equal(optimizer.last.losses)
    before = vector(model)
    for step in range(2, 6):
        resumed.step(twin.losses(x + step), WEIGHTS)
    assert torch.equal(vector(model), before), "the copy has parameters of its own"
    for step in range(2, 6):
        optimizer.step(model.losses(x + step), WEIGHTS)
    assert torch.equal(vector(model), vector(twin))
    assert torch.equal(optimizer.last.gramian, resumed.last.gramian)


def test_the_copy_knows_its_shared_parameters(model: nn.Module, x: Tensor) -> None:
    """Identities would be those of the original's; then nothing would be shared, and no Gramian would be left."""
    twin, copied = deep((model, build(model, {"shared": "trunk"})))
    copied.backward(twin.losses(x), WEIGHTS)
    assert copied.last.norms.min() > 0
    assert {id(p) for p in copied._shared} == {id(p) for p in twin.trunk.parameters()}


@pytest.mark.parametrize("aggregator", [linear, mgda, pcgrad, partial(cagrad, c=0.3)])
def test_other_aggregators_are_copied_too(model: nn.Module, x: Tensor, aggregator: Any) -> None:
    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), aggregator)
    twin, copied = pickled((model, optimizer))  # type: ignore[arg-type]
    optimizer.step(model.losses(x))
    copied.step(twin.losses(x))
    assert torch.equal(vector(model), vector(twin))


def run(model: nn.Module, options: dict[str, Any], steps: int) -> Iterator[None]:
    optimizer = build(model, options)
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        x = torch.randn(6, 4, generator=generator)
        optimizer.accumulate([loss / 2 for loss in model.losses(x)], WEIGHTS)
        optimizer.step([loss / 2 for loss in model.losses(x + 1)], WEIGHTS)
        yield


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_two_optimizers_in_two_threads_do_what_each_does_alone(model: nn.Module, options: dict[str, Any]) -> None:
    models = [copy.deepcopy(model) for _ in range(2)]
    with torch.no_grad():
        models[1].trunk.weight.mul_(2)
    alone = [copy.deepcopy(m) for m in models]
    for m in alone:
        for _ in run(m, options, 20):
            pass
    barrier = Barrier(2)
    errors: list[BaseException] = []

    def work(m: nn.Module) -> None:
        try:
            barrier.wait(30)
            for _ in run(m, options, 20):
                pass
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=work, args=(m,)) for m in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    for m, expected in zip(models, alone, strict=True):
        assert torch.equal(vector(m), vector(expected))


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("options", [*OPTIONS, {"center": "weighted", "fusion": "adaptive"}], ids=str)
def test_deterministic_algorithms_are_enough(model: nn.Module, options: dict[str, Any]) -> None:
    """No operation without a deterministic implementation is called, and two runs agree to the last bit."""
    twin = copy.deepcopy(model)
    for m in (model, twin):
        for _ in run(m, options, 5):
            pass
    assert torch.equal(vector(model), vector(twin))


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("tasks", [1, 2, 3, 8])
@pytest.mark.parametrize("aggregator", [linear, mgda, pcgrad, cagrad])
def test_aggregators_are_deterministic(tasks: int, aggregator: Any) -> None:
    G = torch.randn(5, tasks, 12, dtype=torch.float64)
    M = G @ G.mT
    assert torch.equal(aggregator(M, torch.ones(tasks)), aggregator(M.clone(), torch.ones(tasks)))


@pytest.mark.usefixtures("deterministic")
def test_what_is_not_deterministic_would_be_found() -> None:
    """Negative control: torch refuses such an operation on the CPU too."""
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
