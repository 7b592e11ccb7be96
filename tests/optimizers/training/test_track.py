"""track=β: coefficients of the averages of the gradients before, applied to the gradients of the step."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad, MultiTaskOptimizer, NonFiniteError, came_grad_coefficients, linear, task_gradients
from optimizers.gradients import gramian

WEIGHTS = [1.0, 4.0]


def build(model: nn.Module, track: float | None, **options: object) -> CAMEGrad:
    return CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), track=track, **options)  # type: ignore[arg-type]


def vector(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters()).detach()


def flat(model: nn.Module, losses: list[Tensor]) -> Tensor:
    """(K, P) gradients."""
    return torch.stack(
        [torch.cat([g.flatten() for g in row]) for row in task_gradients(losses, list(model.parameters()))]
    )


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.99, 0.999999])
def test_it_solves_for_the_average_of_the_steps_before(model: nn.Module, x: Tensor, beta: float) -> None:
    optimizer = build(model, beta)
    seen: list[Tensor] = []
    for step in range(6):
        now = flat(model, model.losses(x + step))
        optimizer.zero_grad()
        optimizer.backward(model.losses(x + step), WEIGHTS)
        last = optimizer.last
        if seen:
            weights = torch.tensor([beta ** (step - 1 - s) for s in range(step)], dtype=torch.float64)
            average = torch.tensordot(weights / weights.sum(), torch.stack(seen).double(), 1)
            assert torch.allclose(last.averaged, gramian(average), rtol=1e-4, atol=1e-9)
            assert torch.equal(last.coefficients, came_grad_coefficients(last.averaged, WEIGHTS))
        else:
            assert last.averaged is None
            assert torch.equal(last.coefficients, came_grad_coefficients(last.gramian, WEIGHTS))
        update = torch.cat([p.grad.flatten() for p in model.parameters()])
        assert torch.allclose(update.double(), last.coefficients @ now.double(), rtol=1e-4, atol=1e-7)
        seen.append(now)


def test_coefficients_do_not_depend_on_the_noise_that_they_multiply(model: nn.Module, x: Tensor) -> None:
    """The same past, two different batches: the same coefficients; without tracking others (negative control)."""
    for track, equal in ((0.9, True), (None, False)):
        chosen = []
        for shift in (1.0, -2.0):
            twin = copy.deepcopy(model)
            optimizer = build(twin, track)
            optimizer.step(twin.losses(x), WEIGHTS)
            optimizer.step(twin.losses(x + shift), WEIGHTS)
            chosen.append(optimizer.last.coefficients)
        assert torch.equal(*chosen) == equal


def test_accumulation_tracks_the_joint_batch(model: nn.Module, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    whole, parts = build(model, 0.9), build(twin, 0.9)
    for _ in range(3):
        whole.step([(a + b) / 2 for a, b in zip(model.losses(x), model.losses(-x), strict=True)], WEIGHTS)
        parts.zero_grad()
        parts.accumulate([loss / 2 for loss in twin.losses(x)], WEIGHTS)
        parts.backward([loss / 2 for loss in twin.losses(-x)], WEIGHTS)
        parts.step()
    assert torch.allclose(vector(model), vector(twin), rtol=1e-5, atol=1e-7)


def test_a_saved_state_goes_on_and_a_state_of_before_is_accepted(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, 0.9)
    for step in range(3):
        optimizer.step(model.losses(x + step), WEIGHTS)
    twin = copy.deepcopy(model)
    resumed = build(twin, 0.9)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(3):
        optimizer.step(model.losses(x - step), WEIGHTS)
        resumed.step(twin.losses(x - step), WEIGHTS)
    assert torch.equal(vector(model), vector(twin))
    state = build(twin, None).state_dict()
    del state["tracking"]
    build(twin, None).load_state_dict(state)


def test_a_step_that_fails_is_not_tracked(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, 0.9)
    optimizer.step(model.losses(x), WEIGHTS)
    before = copy.deepcopy(optimizer.state_dict()["tracking"])
    with pytest.raises(NonFiniteError):
        optimizer.step([loss * torch.inf for loss in model.losses(x)], WEIGHTS)
    after = optimizer.state_dict()["tracking"]
    assert after["count"] == before["count"] == 1
    for row, old in zip(after["mean"], before["mean"], strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(row, old, strict=True))


def test_shared_parameters_alone_are_tracked(model: nn.Module, x: Tensor) -> None:
    shared = list(model.parameters())[:1]
    optimizer = build(model, 0.9, shared=shared)
    optimizer.step(model.losses(x), WEIGHTS)
    assert [len(row) for row in optimizer.state_dict()["tracking"]["mean"]] == [1, 1]


def test_what_does_not_fit_is_refused(model: nn.Module, x: Tensor) -> None:
    class Sum:
        def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
            return jacobian.sum(0)

    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    for track in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"track = .* must lie in \[0, 1\)"):
            MultiTaskOptimizer(inner, linear, track=track)
    with pytest.raises(ValueError, match=r"track = 0.5 and ema = 0.5"):
        MultiTaskOptimizer(inner, linear, track=0.5, ema=0.5)
    with pytest.raises(ValueError, match=r"track = 0.5 averages for coefficients, which Sum does not have"):
        MultiTaskOptimizer(inner, Sum(), track=0.5)
    optimizer = MultiTaskOptimizer(inner, linear, track=0.5)
    optimizer.step(model.losses(x))
    with pytest.raises(ValueError, match="tracked gradients are of 2 tasks"):
        optimizer.step(model.losses(x)[:1])
    with pytest.raises(ValueError, match="cannot be tracked"):
        optimizer.step(model.losses(x), features=x)
