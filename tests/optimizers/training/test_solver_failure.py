"""A solver that does not reach its tolerance: warned of, raised, or replaced by linear scalarization; counted."""

import copy
import importlib
from collections.abc import Callable
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad, MultiTaskOptimizer, linear
from optimizers.errors import SolverError, SolverWarning, collect_unsolved, report_unsolved
from optimizers.kernels.columns import RESIDUAL

WEIGHTS = [1.0, 4.0]


class Lazy:
    """Reports a failure on the calls named, and always gives the same coefficients."""

    def __init__(self, *failing: int) -> None:
        self.failing, self.calls = failing, 0

    def __call__(self, gramian: Tensor, weights: Tensor) -> Tensor:
        if self.calls in self.failing:
            report_unsolved(f"duality gap 0.1 on call {self.calls}")
        self.calls += 1
        return weights.new_tensor([2.0, 3.0])


def build(model: nn.Module, *failing: int, **options: Any) -> MultiTaskOptimizer:
    return MultiTaskOptimizer(torch.optim.AdamW(model.parameters(), lr=1e-2), Lazy(*failing), **options)


def test_by_default_it_is_warned_of_and_the_best_answer_used(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, 1)
    optimizer.step(model.losses(x), WEIGHTS)
    assert (optimizer.last.solved, optimizer.unsolved) == (True, 0)
    with pytest.warns(SolverWarning, match=r"duality gap 0\.1 on call 1"):
        optimizer.step(model.losses(x), WEIGHTS)
    assert (optimizer.last.solved, optimizer.unsolved) == (False, 1)
    assert optimizer.last.coefficients.tolist() == [2.0, 3.0]


def test_raising_changes_nothing_but_the_count(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, 1, on_solver_failure="raise", ema=0.5)
    optimizer.step(model.losses(x), WEIGHTS)
    before, state = parameters_to_vector(model.parameters()), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(SolverError, match=r"duality gap 0\.1 on call 1; nothing was changed"):
        optimizer.step(model.losses(x), WEIGHTS)
    assert torch.equal(parameters_to_vector(model.parameters()), before)
    after = optimizer.state_dict()
    assert after["unsolved"] == 1
    assert after["average"]["count"] == state["average"]["count"]
    optimizer.step(model.losses(x), WEIGHTS)
    assert optimizer.last.solved


def test_falling_back_is_the_step_of_linear_scalarization(model: nn.Module, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    optimizer = build(model, 0, on_solver_failure="linear")
    plain = MultiTaskOptimizer(torch.optim.AdamW(twin.parameters(), lr=1e-2), linear)
    optimizer.step(model.losses(x), WEIGHTS)
    plain.step(twin.losses(x), WEIGHTS)
    assert torch.equal(parameters_to_vector(model.parameters()), parameters_to_vector(twin.parameters()))
    assert (optimizer.last.solved, optimizer.unsolved) == (False, 1)
    optimizer.step(model.losses(x), WEIGHTS)
    assert optimizer.last.coefficients.tolist() == [2.0, 3.0]


def test_the_count_is_saved(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, 0, on_solver_failure="linear")
    optimizer.step(model.losses(x), WEIGHTS)
    resumed = build(model)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.unsolved == 1


@pytest.mark.parametrize("policy", ["warn", "raise", "linear"])
def test_came_grad_reports_what_its_dual_says(
    model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    module = importlib.import_module("optimizers.aggregators._came_grad")
    kernel, solve_stages = module._kernel(), module.solve_stages

    def stage_rows(*args: Any) -> int:
        kernel.stage_rows(*args)
        args[-3][:, RESIDUAL] = 1.0
        return len(args[-3])

    def unconverged(*args: Any) -> Tensor:
        columns = solve_stages(*args)
        columns[:, RESIDUAL] = 1.0
        return columns

    monkeypatch.setattr(module, "_kernel", lambda: SimpleNamespace(stage_rows=stage_rows, SOLVED=kernel.SOLVED))
    monkeypatch.setattr(module, "solve_stages", unconverged)
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), on_solver_failure=policy)
    if policy == "raise":
        with pytest.raises(SolverError, match=r"the dual of 1 problem\(s\) has a duality gap of up to"):
            optimizer.step(model.losses(x), WEIGHTS)
    elif policy == "warn":
        with pytest.warns(SolverWarning, match=r"the dual of 1 problem\(s\) has a duality gap of up to"):
            optimizer.step(model.losses(x), WEIGHTS)
        assert optimizer.last.alpha is not None
    else:
        optimizer.step(model.losses(x), WEIGHTS)
        assert optimizer.last.coefficients.tolist() == WEIGHTS
        assert optimizer.last.alpha is None
    assert optimizer.unsolved == 1


def test_an_unknown_policy_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="on_solver_failure = 'ignore' must be 'warn', 'raise' or 'linear'"):
        build(model, on_solver_failure="ignore")


def in_threads(*functions: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors, errors


def test_threads_collect_their_own() -> None:
    barrier = Barrier(2)
    found: dict[str, list[str]] = {}

    def collecting(name: str) -> None:
        with collect_unsolved() as messages:
            barrier.wait(10)
            report_unsolved(name)
            barrier.wait(10)
        found[name] = messages

    in_threads(lambda: collecting("a"), lambda: collecting("b"))
    assert found == {"a": ["a"], "b": ["b"]}
    with pytest.warns(SolverWarning, match="outside"):
        report_unsolved("outside")
