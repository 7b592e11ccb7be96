"""The recipe for mixed precision: scale, backward, unscale, clip, step, update."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

from optimizers import CAMEGrad, MultiTaskOptimizer, linear

WEIGHTS = [1.0, 4.0]


class Normalized(nn.Module):
    """Two heads on a trunk with LayerNorm, which batched per-task backward breaks under autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.norm = nn.Linear(4, 16), nn.LayerNorm(16)
        self.report, self.disease = nn.Linear(16, 5), nn.Linear(16, 3)

    def losses(self, x: Tensor) -> list[Tensor]:
        h = self.norm(self.trunk(x)).relu()
        return [self.report(h).square().mean(), (self.disease(h) - 1).square().mean()]


@pytest.fixture
def model() -> Normalized:
    return Normalized()


def vector(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters()).detach()


def recipe(
    model: Normalized,
    optimizer: MultiTaskOptimizer,
    scaler: torch.amp.GradScaler,
    micro_batches: list[Tensor],
    dtype: torch.dtype | None,
) -> float:
    """One step, as a training loop makes it; the norm before clipping."""
    optimizer.zero_grad()
    for number, x in enumerate(micro_batches, 1):
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            losses = [loss / len(micro_batches) for loss in model.losses(x)]
        take = optimizer.backward if number == len(micro_batches) else optimizer.accumulate
        take(scaler.scale(losses), WEIGHTS, scale=scaler.get_scale())
    scaler.unscale_(optimizer)
    norm = clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    return norm.item()


def build(model: nn.Module, **options: object) -> CAMEGrad:
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-4)
    return CAMEGrad(inner, on_nonfinite="propagate", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", [1, 2])
def test_scaling_changes_nothing_but_rounding(model: Normalized, x: Tensor, parts: int) -> None:
    """In float32 a power of two commutes with rounding: the same parameters to the last bit."""
    twin = copy.deepcopy(model)
    scaled, plain = build(model), build(twin)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    off = torch.amp.GradScaler("cpu", enabled=False)
    for step in range(4):
        batches = list((x + step).chunk(parts))
        assert recipe(model, scaled, scaler, batches, None) == recipe(twin, plain, off, batches, None)
        assert torch.equal(scaled.last.losses, plain.last.losses)
        assert torch.equal(scaled.last.gramian, plain.last.gramian)
        assert torch.equal(scaled.last.coefficients, plain.last.coefficients)
    assert torch.equal(vector(model), vector(twin))


def test_the_wrapped_optimizer_may_be_passed_instead(model: Normalized, x: Tensor) -> None:
    """Both calls of the scaler take the wrapper, or both take what it wraps."""
    twin = copy.deepcopy(model)
    wrapper, inner = build(model), build(twin)
    for m, optimizer, passed in ((model, wrapper, wrapper), (twin, inner, inner.optimizer)):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer.backward(scaler.scale(m.losses(x)), WEIGHTS, scale=scaler.get_scale())
        scaler.unscale_(passed)
        scaler.step(passed)
        scaler.update()
    assert torch.equal(vector(model), vector(twin))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("parts", [1, 2])
def test_autocast_trains_with_layer_norm(model: Normalized, x: Tensor, dtype: torch.dtype, parts: int) -> None:
    before = [loss.item() for loss in model.losses(x)]
    optimizer, scaler = build(model), torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    for _ in range(40):
        recipe(model, optimizer, scaler, list(x.chunk(parts)), dtype)
    assert all(b.item() < 0.5 * a for a, b in zip(before, model.losses(x), strict=True))
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_under_autocast_are_those_of_float32_roughly(
    model: Normalized, x: Tensor, dtype: torch.dtype
) -> None:
    """Within 16 roundings of the low precision."""
    optimizer = build(model)
    grads = []
    for enabled in (False, True):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            losses = model.losses(x)
        optimizer.backward([loss * 64 for loss in losses], WEIGHTS, scale=64.0)
        grads.append(parameters_to_vector([p.grad for p in model.parameters()]) / 64)
    assert (grads[1] - grads[0]).norm() <= 16 * torch.finfo(dtype).eps * grads[0].norm()
    assert not torch.equal(*grads), "autocast was on"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("refresh_every", [1, 10])
def test_an_overflow_halves_the_scale_and_skips_the_step(
    model: Normalized, x: Tensor, shared: bool, refresh_every: int
) -> None:
    """Down from a scale that float16 cannot carry until a step fits; parameters and moments rest meanwhile."""
    trunk = [*model.trunk.parameters(), *model.norm.parameters()]
    optimizer = build(model, shared=trunk if shared else None, refresh_every=refresh_every)
    recipe(model, optimizer, torch.amp.GradScaler("cpu", init_scale=1.0), [x], torch.float16)
    before, moments = vector(model), optimizer.state[model.norm.weight]["exp_avg"].clone()
    last = optimizer.last
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    scales = []
    while torch.equal(vector(model), before):
        assert len(scales) < 24
        scales.append(scaler.get_scale())
        assert torch.equal(optimizer.state[model.norm.weight]["exp_avg"], moments)
        assert optimizer.last is last
        recipe(model, optimizer, scaler, [x], torch.float16)
    assert len(scales) > 4
    assert scales == [2.0 ** (24 - n) for n in range(len(scales))]
    assert scaler.get_scale() == scales[-1], "the step that fitted keeps the scale"
    assert vector(model).isfinite().all()
    assert optimizer.last.fresh == (refresh_every == 1)


def test_overflow_of_a_float16_loss_is_an_overflow(model: Normalized, x: Tensor) -> None:
    """A loss in float16 is infinite once scaled; the true one is not."""
    optimizer, scaler = build(model), torch.amp.GradScaler("cpu")
    before = vector(model)
    optimizer.backward(scaler.scale([loss.half() for loss in model.losses(x)]), scale=scaler.get_scale())
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**15
    assert torch.equal(vector(model), before)


def test_skipped_steps_would_starve_the_scaler(model: Normalized, x: Tensor) -> None:
    """Negative control: with on_nonfinite="skip" there is no gradient in which a scaler could find the overflow."""
    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), linear, on_nonfinite="skip")
    scaler = torch.amp.GradScaler("cpu")
    losses = model.losses(x)
    optimizer.backward(scaler.scale([losses[0], losses[1] / 0]), scale=scaler.get_scale())
    scaler.unscale_(optimizer)
    with pytest.raises(AssertionError, match="No inf checks were recorded"):
        scaler.step(optimizer)
