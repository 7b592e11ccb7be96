"""ema=β: coefficients of the averaged Gramian, applied to the gradients of the step."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import (
    CAMEGrad,
    MultiTaskOptimizer,
    NonFiniteError,
    came_grad_coefficients,
    linear,
    mgda,
    task_gradients,
)

WEIGHTS = [1.0, 4.0]


def build(model: nn.Module, ema: float | None, **options: object) -> CAMEGrad:
    return CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), ema=ema, **options)  # type: ignore[arg-type]


def vector(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters()).detach()


def test_the_first_step_is_unbiased(model: nn.Module, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    averaging, plain = build(model, 0.99), build(twin, None)
    averaging.step(model.losses(x), WEIGHTS)
    plain.step(twin.losses(x), WEIGHTS)
    assert torch.equal(vector(model), vector(twin))
    assert torch.equal(averaging.last.averaged, averaging.last.gramian)
    assert plain.last.averaged is None


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999999])
def test_it_solves_for_the_average_with_the_weights_of_its_definition(model: nn.Module, x: Tensor, beta: float) -> None:
    optimizer = build(model, beta)
    seen = []
    for step in range(6):
        optimizer.zero_grad()
        optimizer.backward(model.losses(x + step), WEIGHTS)
        seen.append(optimizer.last.gramian)
        weights = torch.tensor([beta ** (step - s) for s in range(step + 1)], dtype=torch.float64)
        expected = torch.tensordot(weights / weights.sum(), torch.stack(seen), 1)
        assert torch.allclose(optimizer.last.averaged, expected, rtol=1e-9, atol=0)
        assert torch.equal(optimizer.last.coefficients, came_grad_coefficients(optimizer.last.averaged, WEIGHTS))
        gradients = task_gradients(model.losses(x + step), list(model.parameters()))
        c = optimizer.last.coefficients.tolist()
        for p, first, second in zip(model.parameters(), *gradients, strict=True):
            assert torch.allclose(p.grad, c[0] * first + c[1] * second, rtol=1e-5, atol=1e-7)


def test_it_gives_up_the_guarantee_of_the_step_and_keeps_that_of_the_average() -> None:
    """Two tasks agree for long and then conflict: MGDA on the average harms a task now, though not on average."""
    x = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    agreeing = torch.tensor([[1.0, 0.0], [1.0, 0.1]], dtype=torch.float64)
    conflicting = torch.tensor([[1.0, 0.0], [-0.9, 0.1]], dtype=torch.float64)
    harmed = {}
    for ema in (None, 0.9):
        optimizer = MultiTaskOptimizer(torch.optim.SGD([x], lr=0.0), mgda, ema=ema)
        for G in [agreeing] * 20 + [conflicting]:
            optimizer.step([G[0] @ x, G[1] @ x])
        harmed[ema] = bool((conflicting @ x.grad < -1e-12).any())
    assert harmed == {None: False, 0.9: True}
    assert (optimizer.last.averaged @ optimizer.last.coefficients >= -1e-12).all()


def test_it_makes_coefficients_steadier(model: nn.Module) -> None:
    spread = {}
    for ema in (None, 0.9):
        optimizer = build(model, ema)
        coefficients = []
        for step in range(40):
            batch = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
            optimizer.backward(model.losses(batch), WEIGHTS)
            coefficients.append(optimizer.last.coefficients)
        spread[ema] = torch.stack(coefficients[20:]).std(0).sum().item()
    assert spread[0.9] < 0.5 * spread[None]


def test_the_average_is_saved(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, 0.9)
    for step in range(3):
        optimizer.step(model.losses(x + step), WEIGHTS)
    twin = copy.deepcopy(model)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    other = copy.deepcopy(model)
    resumed, forgetful = build(twin, 0.9), build(other, 0.9)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for step in range(3, 6):
        forgetful.step(other.losses(x + step), WEIGHTS)
        optimizer.step(model.losses(x + step), WEIGHTS)
        resumed.step(twin.losses(x + step), WEIGHTS)
        assert torch.equal(optimizer.last.averaged, resumed.last.averaged)
    assert torch.equal(vector(model), vector(twin))
    assert not torch.equal(forgetful.last.averaged, optimizer.last.averaged), "negative control"


def test_with_refresh_every_the_average_is_of_the_fresh_steps(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, 0.5, refresh_every=2)
    gramians = []
    for step in range(4):
        optimizer.step(model.losses(x + step), WEIGHTS)
        gramians.append(optimizer.last.gramian)
    assert optimizer.state_dict()["average"]["count"] == 2
    assert torch.allclose(optimizer.last.averaged, (gramians[0] + 2 * gramians[2]) / 3, rtol=1e-12)


def test_a_bad_step_is_not_averaged(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, 0.5)
    optimizer.step(model.losses(x))
    before = copy.deepcopy(optimizer.state_dict()["average"])
    first, second = model.losses(x)
    with pytest.raises(NonFiniteError):
        optimizer.step([first, second + (model.disease.bias.sum() * 0).sqrt()])
    after = optimizer.state_dict()["average"]
    assert torch.equal(after["mean"], before["mean"])
    assert after["count"] == before["count"] == 1


def test_what_does_not_fit_is_refused(model: nn.Module, x: Tensor) -> None:
    class Sum:
        def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
            return jacobian.sum(0)

    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    for ema in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"ema = .* must lie in \[0, 1\)"):
            MultiTaskOptimizer(inner, linear, ema=ema)
    with pytest.raises(ValueError, match=r"ema = 0.5 averages for coefficients, which Sum does not have"):
        MultiTaskOptimizer(inner, Sum(), ema=0.5)
    optimizer = MultiTaskOptimizer(inner, linear, ema=0.5)
    optimizer.step(model.losses(x))
    with pytest.raises(ValueError, match="average is of 2 tasks, this step has 1 losses"):
        optimizer.step(model.losses(x)[:1])
