"""Coefficients reused between solutions: one backward on the steps between."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad, MultiTaskOptimizer, linear

WEIGHTS = [1.0, 4.0]


@pytest.fixture
def passes(model: nn.Module) -> list[int]:
    """Counts the backward passes through the trunk, since it was cleared."""
    seen: list[int] = []

    def watch(module: nn.Module, args: object, output: Tensor) -> None:
        output.register_hook(lambda _: seen.append(1))

    model.trunk.register_forward_hook(watch)
    return seen


def build(model: nn.Module, every: int, **options: object) -> CAMEGrad:
    return CAMEGrad(torch.optim.AdamW(model.parameters(), lr=1e-2), refresh_every=every, **options)  # type: ignore[arg-type]


def test_solving_on_every_step_is_the_default(model: nn.Module, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    plain, every = CAMEGrad(torch.optim.AdamW(twin.parameters(), lr=1e-2)), build(model, 1)
    for _ in range(4):
        plain.step(twin.losses(x), WEIGHTS)
        every.step(model.losses(x), WEIGHTS)
        assert every.last.fresh
    assert torch.equal(parameters_to_vector(model.parameters()), parameters_to_vector(twin.parameters()))


def test_steps_between_go_backward_once_with_the_same_coefficients(
    model: nn.Module, x: Tensor, passes: list[int]
) -> None:
    optimizer = build(model, 3)
    coefficients = []
    for step in range(7):
        passes.clear()
        optimizer.step(model.losses(x + step), WEIGHTS)
        assert optimizer.last.fresh == (step % 3 == 0)
        assert len(passes) == (2 if optimizer.last.fresh else 1)
        coefficients.append(optimizer.last.coefficients.tolist())
    assert coefficients[0] == coefficients[1] == coefficients[2]
    assert coefficients[3] == coefficients[4] == coefficients[5]
    assert coefficients[0] != coefficients[3] != coefficients[6]


def test_a_step_between_is_the_gradient_of_the_weighted_sum(model: nn.Module, x: Tensor) -> None:
    """Also with a scale, and over micro-batches; to float32 rounding."""
    optimizer = build(model, 10)
    optimizer.step(model.losses(x), WEIGHTS)
    c = optimizer.last.coefficients.tolist()
    model.zero_grad()
    sum(a * loss for a, loss in zip(c, model.losses(x), strict=True)).backward()
    expected = parameters_to_vector([p.grad for p in model.parameters()])
    for scale in (1.0, 256.0):
        optimizer.zero_grad()
        optimizer.accumulate([loss / 2 * scale for loss in model.losses(x[:3])], WEIGHTS, scale=scale)
        optimizer.backward([loss / 2 * scale for loss in model.losses(x[3:])], WEIGHTS, scale=scale)
        found = parameters_to_vector([p.grad for p in model.parameters()])
        assert torch.allclose(found / scale, expected, rtol=1e-5, atol=1e-6)
        assert optimizer.last.losses.tolist() == pytest.approx([loss.item() for loss in model.losses(x)])


def test_other_task_weights_are_solved_for_at_once(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, 10)
    fresh = []
    for weights in (WEIGHTS, WEIGHTS, None, [1.0, 1.0], WEIGHTS):
        optimizer.step(model.losses(x), weights)
        fresh.append(optimizer.last.fresh)
    assert fresh == [True, False, True, False, True]
    optimizer.step(model.losses(x)[:1])
    assert optimizer.last.fresh


def test_what_a_step_between_reports(model: nn.Module, x: Tensor) -> None:
    seen = []
    optimizer = build(model, 2, observer=lambda gradients, M: seen.append(M))
    optimizer.step(model.losses(x))
    first = optimizer.last
    losses = [loss.item() for loss in model.losses(x)]
    optimizer.step(model.losses(x))
    assert optimizer.last.losses.tolist() == pytest.approx(losses)
    assert torch.equal(optimizer.last.gramian, first.gramian)
    assert len(seen) == 1, "the observer has nothing to see between solutions"


@pytest.mark.parametrize("made", [1, 2, 3, 4])
def test_a_run_saved_within_a_cycle_continues_bit_for_bit(model: nn.Module, x: Tensor, made: int) -> None:
    optimizer = build(model, 3)
    for step in range(made):
        optimizer.step(model.losses(x + step), WEIGHTS)
    twin = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = build(twin, 3)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(made, made + 4):
        optimizer.step(model.losses(x + step), WEIGHTS)
        resumed.step(twin.losses(x + step), WEIGHTS)
        assert resumed.last.fresh == optimizer.last.fresh
        assert resumed.last.coefficients.tolist() == optimizer.last.coefficients.tolist()
    assert torch.equal(parameters_to_vector(model.parameters()), parameters_to_vector(twin.parameters()))


def test_nothing_is_known_of_a_gramian_before_the_resume(model: nn.Module, x: Tensor) -> None:
    optimizer, resumed = build(model, 3), build(model, 3)
    optimizer.step(model.losses(x))
    resumed.load_state_dict(optimizer.state_dict())
    resumed.step(model.losses(x))
    assert not resumed.last.fresh
    assert resumed.last.gramian.isnan().all()
    assert resumed.last.gramian.shape == resumed.last.cosines.shape == (2, 2)
    resumed.load_state_dict(build(model, 3).state_dict())
    resumed.step(model.losses(x))
    assert resumed.last.fresh


def test_reuse_changes_the_run(model: nn.Module, x: Tensor) -> None:
    """Negative control of the equalities above."""
    twin = copy.deepcopy(model)
    often, rarely = build(model, 1), build(twin, 3)
    for step in range(3):
        often.step(model.losses(x + step), WEIGHTS)
        rarely.step(twin.losses(x + step), WEIGHTS)
    assert not torch.equal(parameters_to_vector(model.parameters()), parameters_to_vector(twin.parameters()))


def test_what_cannot_be_reused_is_refused(model: nn.Module) -> None:
    class Sum:
        def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
            return task_weights @ jacobian

    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="refresh_every = 2 needs coefficients to reuse, which Sum does not have"):
        MultiTaskOptimizer(inner, Sum(), refresh_every=2)
    with pytest.raises(ValueError, match="refresh_every = 0 must be >= 1"):
        MultiTaskOptimizer(inner, linear, refresh_every=0)
