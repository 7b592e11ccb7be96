"""Scheduled scalarization: the weighted sum of the step's weights, by one backward pass."""

import copy
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad, MultiTaskOptimizer, ScheduledScalarization, WeightSchedule, linear
from optimizers.aggregators import ScheduleError

TABLE = torch.tensor([[1.0, 4.0], [2.0, 0.0], [-1.0, 3.0]]).double()
numbers = st.floats(-1e300, 1e300, allow_subnormal=True)


def build(model: nn.Module, aggregator: object, **options: object) -> MultiTaskOptimizer:
    return MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), aggregator, **options)  # type: ignore[arg-type]


def vector(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters()).detach()


def scheduled(model: nn.Module, table: Tensor = TABLE, **options: object) -> MultiTaskOptimizer:
    return build(model, ScheduledScalarization(WeightSchedule(table, ("rg", "dc"))), **options)


def test_every_step_has_its_weights(model: nn.Module, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    optimizer = scheduled(model)
    by_hand = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in range(5):
        optimizer.step(model.losses(x + step), [7.0, 7.0])
        by_hand.zero_grad()
        c = TABLE[min(step, 2)].tolist()
        first, second = twin.losses(x + step)
        (c[0] * first + c[1] * second).backward()
        by_hand.step()
        assert torch.allclose(vector(model), vector(twin), rtol=1e-6, atol=1e-8)
        assert optimizer.last.coefficients.tolist() == c
        assert not optimizer.last.fresh


def test_one_backward_pass_a_step_and_k_with_an_observer(model: nn.Module, x: Tensor) -> None:
    calls = {"passes": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            calls["passes"] += 1
            return gradient

    def losses() -> list[Tensor]:
        return model.losses(Counted.apply(x.clone().requires_grad_()))

    for build_one, passes in (
        (lambda: scheduled(model), 1),
        (lambda: scheduled(model, observer=lambda gradients, gramian: None), 2),
        (lambda: build(model, linear), 2),
    ):
        optimizer = build_one()
        calls["passes"] = 0
        optimizer.step(losses())
        assert calls["passes"] in (0, passes)  # torch may leave out what no parameter needs
    assert scheduled(model).aggregator.step == 0


def test_an_observer_sees_the_gradients_and_nothing_else_changes(model: nn.Module, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    seen: list[Tensor] = []
    watched, plain = scheduled(model, observer=lambda g, gramian: seen.append(gramian)), scheduled(twin)
    for step in range(3):
        watched.step(model.losses(x + step))
        plain.step(twin.losses(x + step))
    assert len(seen) == 3
    assert watched.aggregator.step == plain.aggregator.step == 3
    assert torch.allclose(vector(model), vector(twin), rtol=1e-6, atol=1e-8)


def test_micro_batches_belong_to_one_step_of_the_schedule(model: nn.Module, x: Tensor) -> None:
    optimizer = scheduled(model)
    optimizer.accumulate(model.losses(x))
    optimizer.backward(model.losses(-x))
    optimizer.step()
    assert optimizer.aggregator.step == 1


def test_a_saved_state_goes_on(model: nn.Module, x: Tensor) -> None:
    optimizer = scheduled(model)
    optimizer.step(model.losses(x))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(model)
    resumed = scheduled(twin)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    optimizer.step(model.losses(x))
    resumed.step(twin.losses(x))
    assert torch.equal(vector(model), vector(twin))
    assert resumed.last.coefficients.tolist() == TABLE[1].tolist()


def test_a_replay_of_came_grad_takes_its_steps(model: nn.Module, x: Tensor) -> None:
    """Without noise between the runs the replay is the run, at one backward pass a step."""
    twin = copy.deepcopy(model)
    came = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    rows = []
    for step in range(4):
        came.step(model.losses(x + step), [1.0, 4.0])
        rows.append(came.last.coefficients)
    replay = scheduled(twin, torch.stack(rows))
    for step in range(4):
        replay.step(twin.losses(x + step))
    assert torch.allclose(vector(model), vector(twin), rtol=1e-5, atol=1e-7)


def test_what_does_not_fit_is_refused(model: nn.Module, x: Tensor) -> None:
    for options in ({"refresh_every": 2}, {"ema": 0.5}, {"track": 0.5}):
        with pytest.raises(ValueError, match="would be ignored, leave them out"):
            scheduled(model, **options)
    with pytest.raises(ValueError, match=r"gives \[1.0, 4.0\] at step 0, not 1 finite weights"):
        scheduled(model).step(model.losses(x)[:1])
    with pytest.raises(ValueError, match="not 2 finite weights"):
        build(model, ScheduledScalarization(lambda step: [1.0, float("nan")])).step(model.losses(x))


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6))
def test_a_file_keeps_every_digit(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float]]) -> None:
    path = tmp_path_factory.mktemp("schedule") / "c.csv"
    schedule = WeightSchedule(torch.tensor(rows, dtype=torch.float64), ("rg", "a, b"))
    schedule.write(path)
    again = WeightSchedule.read(path)
    assert torch.equal(again.weights, schedule.weights)
    assert again.tasks == schedule.tasks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with ''"),
        ("time,rg\n0,1\n", "begins with 'time,rg'"),
        ("step,rg\n", "holds no step yet"),
        ("step,rg\n0,1\n2,1\n", "line 3: expected step 1"),
        ("step,rg\n0,1,2\n", "line 2: expected step 0 and 1 finite weights"),
        ("step,rg\n0,nan\n", "line 2: expected"),
        ("step,rg\n0,one\n", "line 2: '0,one' is no row of numbers"),
        ("step,rg\n0,1\n1,", "line 3: '1,' is no row of numbers"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: pytest.TempPathFactory, text: str, message: str) -> None:
    path = tmp_path / "c.csv"  # type: ignore[operator]
    path.write_text(text)
    with pytest.raises(ScheduleError, match=message):
        WeightSchedule.read(path)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 30))
def test_smoothing_and_stretching_keep_constants_and_ends(rows: int, window: int, steps: int) -> None:
    table = torch.randn(rows, 2, generator=torch.Generator().manual_seed(rows)).double()
    schedule = WeightSchedule(table, ("rg", "dc"))
    smooth = schedule.smoothed(window).weights
    assert torch.allclose(smooth[0], table[0])
    assert torch.allclose(smooth[-1], table[-1])
    assert smooth.min() >= table.min() - 1e-12
    assert smooth.max() <= table.max() + 1e-12
    long = schedule.stretched(steps).weights
    assert long.shape == (steps, 2)
    assert torch.allclose(long[0], table[0])
    if steps > 1:
        assert torch.allclose(long[-1], table[-1])
    assert torch.equal(schedule.stretched(rows).weights, table)
    constant = WeightSchedule(table[:1], ("rg", "dc"))
    assert torch.allclose(constant.smoothed(window).stretched(steps).weights, table[:1].expand(steps, 2))


def test_tables_that_are_none_are_refused() -> None:
    for weights, tasks, message in (
        (torch.zeros(0, 2), ("a", "b"), "must be a table"),
        (torch.zeros(2), ("a", "b"), "must be a table"),
        (torch.zeros(1, 2), ("a",), "as many different task names"),
        (torch.zeros(1, 2), ("a", "a"), "as many different task names"),
        (torch.tensor([[1.0], [torch.nan]]), ("a",), "step 1 are not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            WeightSchedule(weights, tasks)
    one = WeightSchedule(torch.ones(1, 1), ("a",))
    for call in (lambda: one.smoothed(0), lambda: one.stretched(0), lambda: WeightSchedule.average([])):
        with pytest.raises(ValueError, match=r"must be >= 1|must have the same tasks"):
            call()
