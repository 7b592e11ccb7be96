"""clip_norm and clip_value: within step(), after everything else that changes gradients."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector

from optimizers import CAMEGrad, MultiTaskOptimizer, linear

LIMIT = 0.02


def vector(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("option", ["clip_norm", "clip_value"])
@pytest.mark.parametrize("in_one_call", [True, False])
def test_it_is_clipping_by_hand_between_backward_and_step(
    model: nn.Module, x: Tensor, option: str, in_one_call: bool
) -> None:
    twin, unclipped = copy.deepcopy(model), copy.deepcopy(model)
    ours = CAMEGrad(torch.optim.AdamW(model.parameters()), **{option: LIMIT})  # type: ignore[arg-type]
    by_hand, plain = (CAMEGrad(torch.optim.AdamW(m.parameters())) for m in (twin, unclipped))
    clip = clip_grad_norm_ if option == "clip_norm" else clip_grad_value_
    for _ in range(3):
        if in_one_call:
            ours.step(model.losses(x))
        else:
            ours.zero_grad()
            ours.backward(model.losses(x))
            ours.step()
        by_hand.zero_grad()
        by_hand.backward(twin.losses(x))
        clip(twin.parameters(), LIMIT)
        by_hand.step()
        plain.step(unclipped.losses(x))
    assert torch.equal(vector(model), vector(twin))
    assert not torch.equal(vector(model), vector(unclipped)), "negative control: the limit binds"


def test_it_makes_the_two_arms_of_the_paper_comparable(model: nn.Module, x: Tensor) -> None:
    """The authors' baseline clips entries at 0.1; the same option on both arms bounds both."""
    twin = copy.deepcopy(model)
    arms = [
        (model, MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), linear, clip_value=LIMIT)),
        (twin, CAMEGrad(torch.optim.SGD(twin.parameters(), lr=1.0), clip_value=LIMIT)),
    ]
    for arm, optimizer in arms:
        before = vector(arm)
        optimizer.step(arm.losses(x), [1.0, 4.0])
        moved = (vector(arm) - before).abs().max().item()
        assert moved == pytest.approx(LIMIT, rel=1e-4)


def test_under_a_grad_scaler_it_comes_after_unscaling(model: nn.Module, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    scaled = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), clip_norm=LIMIT, on_nonfinite="propagate")
    plain = CAMEGrad(torch.optim.SGD(twin.parameters(), lr=0.1), clip_norm=LIMIT)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled.zero_grad()
    scaled.backward(scaler.scale(model.losses(x)), scale=scaler.get_scale())
    scaler.step(scaled)
    scaler.update()
    plain.step(twin.losses(x))
    assert torch.allclose(vector(model), vector(twin), rtol=1e-6, atol=0)


def test_limits_outside_their_domain_are_refused(model: nn.Module) -> None:
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    for option in ("clip_norm", "clip_value"):
        for limit in (0.0, -1.0, float("inf"), float("nan")):
            with pytest.raises(ValueError, match=f"{option} = .* must be finite and > 0; None clips nothing"):
                MultiTaskOptimizer(inner, linear, **{option: limit})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clip by the one or by the other"):
        MultiTaskOptimizer(inner, linear, clip_norm=1.0, clip_value=1.0)
