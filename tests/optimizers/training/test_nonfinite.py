"""NaN and infinity in losses and gradients: raised, skipped, or passed on to a GradScaler."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad, NonFiniteError


def nan_loss(model: nn.Module, x: Tensor) -> list[Tensor]:
    return [model.losses(x)[0] * torch.nan, model.losses(x)[1]]


def infinite_loss(model: nn.Module, x: Tensor) -> list[Tensor]:
    return [model.losses(x)[0], model.losses(x)[1] / 0]


def poisoned_gradient(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Finite losses, of which the second has an infinite slope at 0."""
    first, second = model.losses(x)
    return [first, second + (model.disease.bias.sum() * 0).sqrt()]


BAD = {
    nan_loss: "loss of task 0 is nan",
    infinite_loss: "loss of task 1 is inf",
    poisoned_gradient: "gradient of task 1 is not finite",
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("method", ["step", "backward"])
def test_it_is_named_and_changes_nothing(
    model: nn.Module, x: Tensor, unchanged: Callable, bad: Callable, method: str
) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()))
    optimizer.step(model.losses(x))
    with unchanged(model, optimizer), pytest.raises(NonFiniteError, match=BAD[bad]):
        getattr(optimizer, method)(bad(model, x))


@pytest.mark.parametrize("bad", BAD)
def test_skipping_counts_and_leaves_everything(model: nn.Module, x: Tensor, bad: Callable) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()), on_nonfinite="skip")
    optimizer.step(model.losses(x))
    before, moments = parameters_to_vector(model.parameters()), optimizer.state[model.trunk.bias]["exp_avg"].clone()
    optimizer.step(bad(model, x))
    optimizer.backward(bad(model, x))
    optimizer.step()
    assert torch.equal(parameters_to_vector(model.parameters()), before)
    assert torch.equal(optimizer.state[model.trunk.bias]["exp_avg"], moments)
    assert optimizer.skipped == optimizer.state_dict()["skipped"] == 2
    optimizer.step(model.losses(x))
    assert optimizer.skipped == 2
    assert not torch.equal(parameters_to_vector(model.parameters()), before)


@pytest.mark.parametrize("in_one_call", [True, False])
def test_a_good_backward_after_a_bad_one_is_stepped(model: nn.Module, x: Tensor, in_one_call: bool) -> None:
    """zero_grad and a fresh backward supersede a skipped one; the step belongs to the fresh one."""
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), on_nonfinite="skip")
    optimizer.backward(poisoned_gradient(model, x))
    before = parameters_to_vector(model.parameters())
    if in_one_call:
        optimizer.step(model.losses(x))
    else:
        optimizer.zero_grad()
        optimizer.backward(model.losses(x))
        optimizer.step()
    assert not torch.equal(parameters_to_vector(model.parameters()), before)
    assert optimizer.skipped == 0


def test_one_bad_backward_skips_the_step_of_several(model: nn.Module, x: Tensor) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), on_nonfinite="skip")
    before = parameters_to_vector(model.parameters())
    optimizer.backward(poisoned_gradient(model, x))
    optimizer.backward(model.losses(x))
    optimizer.step()
    assert torch.equal(parameters_to_vector(model.parameters()), before)
    assert optimizer.skipped == 1


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_micro_batch_is_found_by_the_backward(
    model: nn.Module, x: Tensor, unchanged: Callable, bad: Callable
) -> None:
    """accumulate() takes it; the backward that includes it refuses, and forgets all micro-batches of the step."""
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()))
    optimizer.step(model.losses(x))
    optimizer.accumulate(bad(model, x))
    with unchanged(model, optimizer), pytest.raises(NonFiniteError, match=BAD[bad]):
        optimizer.backward(model.losses(x))
    optimizer.step(model.losses(x))


def test_heads_outside_the_shared_parameters_are_looked_at(model: nn.Module, x: Tensor, unchanged: Callable) -> None:
    """The Gramian of the shared parameters is finite here; the head's gradient is not."""
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()), shared=model.trunk.parameters())
    optimizer.step(model.losses(x))
    with (
        unchanged(model, optimizer),
        pytest.raises(NonFiniteError, match="weighted sum, of a parameter that is not shared, is not finite"),
    ):
        optimizer.step(poisoned_gradient(model, x))


def test_reused_coefficients_are_looked_behind(model: nn.Module, x: Tensor, unchanged: Callable) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()), refresh_every=3)
    optimizer.step(model.losses(x))
    with unchanged(model, optimizer), pytest.raises(NonFiniteError, match="gradient of the weighted sum is not finite"):
        optimizer.step(poisoned_gradient(model, x))
    optimizer.step(model.losses(x))
    assert not optimizer.last.fresh


def test_propagation_never_steps_along_nan(model: nn.Module, x: Tensor, unchanged: Callable) -> None:
    """No GradScaler can look into step(losses), so there "propagate" raises."""
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()), on_nonfinite="propagate")
    with unchanged(model, optimizer), pytest.raises(NonFiniteError, match="gradient of task 1 is not finite"):
        optimizer.step(poisoned_gradient(model, x))
    optimizer.backward(poisoned_gradient(model, x))
    assert all(p.grad.isnan().all() for p in model.parameters())
    optimizer.backward(model.losses(x))
    assert all(p.grad.isnan().all() for p in model.parameters()), "one bad backward spoils the step"
