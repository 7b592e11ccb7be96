import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from optimizers import CAMEGrad, MultiTaskOptimizer, came_grad, linear, task_gradients


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def test_gradients_are_those_of_came_grad(model: nn.Module, x: Tensor) -> None:
    parameters = list(model.parameters())
    separate = []
    for task in range(2):
        model.zero_grad(set_to_none=False)
        model.losses(x)[task].backward()
        separate.append(flat([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]))
    model.zero_grad()
    optimizer = CAMEGrad(torch.optim.SGD(parameters, lr=0.1))
    optimizer.backward(model.losses(x), [1.0, 4.0])
    expected = came_grad(torch.stack(separate), [1.0, 4.0])
    assert torch.allclose(flat([p.grad for p in parameters]), expected.update, rtol=1e-5, atol=1e-7)
    assert optimizer.last is not None
    assert torch.allclose(optimizer.last.alpha, expected.alpha.double(), atol=1e-5)
    assert optimizer.last.dual_value == pytest.approx(expected.dual_value.item(), rel=1e-5)
    assert optimizer.last.valid is bool(expected.valid)


def test_linear_equals_backward_of_the_weighted_sum(model: nn.Module, x: Tensor) -> None:
    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), linear)
    optimizer.backward(model.losses(x), [1.0, 4.0])
    ours = flat([p.grad for p in model.parameters()])
    model.zero_grad()
    first, second = model.losses(x)
    (first + 4 * second).backward()
    assert torch.allclose(ours, flat([p.grad for p in model.parameters()]), rtol=1e-5, atol=1e-7)
    assert optimizer.last.alpha is None


def test_step_with_losses_ignores_stale_gradients(model: nn.Module, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    stale = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    for p in model.parameters():
        p.grad = torch.full_like(p, 100.0)
    stale.step(model.losses(x))
    clean = CAMEGrad(torch.optim.SGD(twin.parameters(), lr=0.1))
    clean.backward(twin.losses(x))
    clean.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_backward_accumulates_and_the_caller_may_clip(model: nn.Module, x: Tensor) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.backward(model.losses(x))
    once = flat([p.grad for p in model.parameters()])
    optimizer.backward(model.losses(x))
    assert torch.allclose(flat([p.grad for p in model.parameters()]), 2 * once)
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    before = flat([p.detach().clone() for p in model.parameters()])
    optimizer.step()
    moved = flat([p.detach() for p in model.parameters()]) - before
    assert moved.norm().item() == pytest.approx(1e-4, rel=1e-3)


def test_the_graph_is_freed_on_the_last_task(model: nn.Module, x: Tensor) -> None:
    losses = model.losses(x)
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.backward(losses)
    with pytest.raises(RuntimeError, match="second time"):
        losses[1].backward()


def test_a_parameter_that_a_task_does_not_reach_counts_as_zero(model: nn.Module, x: Tensor) -> None:
    gradients = task_gradients(model.losses(x), list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    assert gradients[0][names.index("disease.weight")].abs().max() == 0
    assert gradients[1][names.index("report.bias")].abs().max() == 0
    assert gradients[0][names.index("report.bias")].abs().max() > 0


def test_a_parameter_that_no_task_reaches_is_left_alone(model: nn.Module, x: Tensor) -> None:
    """No gradient, so neither weight decay nor momentum moves it, as after Tensor.backward."""
    extra = nn.Parameter(torch.ones(3))
    twin, twin_extra = copy.deepcopy(model), nn.Parameter(torch.ones(3))
    optimizer = MultiTaskOptimizer(torch.optim.AdamW([*model.parameters(), extra], weight_decay=0.5), linear)
    plain = torch.optim.AdamW([*twin.parameters(), twin_extra], weight_decay=0.5)
    for _ in range(2):
        optimizer.step(model.losses(x))
        plain.zero_grad()
        sum(twin.losses(x)).backward()
        plain.step()
    assert extra.grad is None
    assert extra.tolist() == twin_extra.tolist() == [1.0] * 3
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-6)
    combining = MultiTaskOptimizer(optimizer.optimizer, Combining(lambda J, w: w @ J))
    combining.step(model.losses(x))
    assert extra.grad is None
    extra.grad = torch.ones(3)
    optimizer.backward(model.losses(x))
    assert extra.grad.tolist() == [1.0] * 3


def test_a_parameter_that_no_task_reaches_costs_nothing(model: nn.Module, x: Tensor) -> None:
    """No tensor of its size is made on the way; one that a task reaches is seen by the same counter."""
    made: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            made.extend(t.numel() for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, Tensor))
            return result

    unused, used = nn.Parameter(torch.ones(10_007)), nn.Parameter(torch.ones(10_009))
    optimizer = CAMEGrad(torch.optim.AdamW([*model.parameters(), unused, used]))
    for _ in range(2):
        losses = model.losses(x)
        losses[0] = losses[0] + used.square().sum()
        with Sizes():
            optimizer.step(losses)
    assert made.count(10_009) > 0
    assert made.count(10_007) == 0


def test_gradients_that_share_memory_are_told_apart() -> None:
    """Autograd returns one expanded zero-stride tensor for both summands; clipping in place must not meet it."""
    p, q = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    raw = torch.autograd.grad((p + q).sum(), [p, q])
    assert raw[0].data_ptr() == raw[1].data_ptr(), "the premise"
    for refresh_every in (1, 2):
        optimizer = MultiTaskOptimizer(torch.optim.SGD([p, q], lr=0.1), linear, refresh_every=refresh_every)
        for scale in (1.0, 8.0, 1.0, 8.0):
            optimizer.zero_grad()
            optimizer.accumulate([(p + q).sum() * scale], scale=scale)
            optimizer.backward([(p + q).sum() * scale], scale=scale)
            for parameter in (p, q):
                parameter.grad.mul_(0.5)
            assert p.grad.tolist() == q.grad.tolist() == [scale] * 3


def test_reentrant_checkpointing_is_refused(model: nn.Module, x: Tensor) -> None:
    """It hides the trunk's parameters from autograd.grad, which would silently leave them untrained."""
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    x.requires_grad_()

    def losses(*, use_reentrant: bool) -> list[Tensor]:
        h = checkpoint(model.trunk, x, use_reentrant=use_reentrant).tanh()
        return [model.report(h).square().mean(), (model.disease(h) - 1).square().mean()]

    with pytest.raises(ValueError, match=r"use_reentrant=True, which hides its parameters.*use_reentrant=False"):
        optimizer.step(losses(use_reentrant=True))
    optimizer.backward(losses(use_reentrant=False))
    expected = task_gradients(model.losses(x), list(model.parameters()))
    assert model.trunk.weight.grad.norm() > 0.1 * expected[0][0].norm()


class Combining:
    """A Jacobian aggregator that is a function of the matrix."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.combine = function


def test_a_jacobian_aggregator_sees_all_gradients_in_order(model: nn.Module, x: Tensor) -> None:
    """Rows are tasks, columns the parameters in the optimizer's order, zeros where a task does not reach."""
    seen = []

    def combine(jacobian: Tensor, weights: Tensor) -> Tensor:
        seen.append(jacobian.clone())
        return weights @ jacobian

    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), Combining(combine))
    optimizer.backward(model.losses(x), [1.0, 4.0])
    expected = torch.stack([flat(g) for g in task_gradients(model.losses(x), list(model.parameters()))])
    assert torch.equal(seen[0], expected)
    assert torch.equal(flat([p.grad for p in model.parameters()]), torch.tensor([1.0, 4.0]) @ expected)
    assert optimizer.last.coefficients is None
    for bad in (lambda J, w: J[0, :3], lambda J, w: J[0] * torch.nan):
        with pytest.raises(ValueError, match=r"finite \(K, P\) gradients into a finite update of shape \(112,\)"):
            MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), Combining(bad)).step(model.losses(x))


def test_frozen_parameters_are_left_alone(model: nn.Module, x: Tensor) -> None:
    model.trunk.weight.requires_grad_(False)
    frozen = model.trunk.weight.clone()
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters(), weight_decay=0.5))
    optimizer.step(model.losses(x))
    assert torch.equal(model.trunk.weight, frozen)
    assert model.trunk.weight.grad is None


def test_unfreezing_between_steps_is_followed(model: nn.Module, x: Tensor) -> None:
    model.trunk.requires_grad_(False)
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.step(model.losses(x))
    model.trunk.requires_grad_(True)
    before = model.trunk.weight.detach().clone()
    optimizer.step(model.losses(x))
    assert not torch.equal(model.trunk.weight, before)


def test_last_describes_the_step(model: nn.Module, x: Tensor) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    assert optimizer.last is None
    losses = model.losses(x)
    gradients = task_gradients(model.losses(x), list(model.parameters()))
    G = torch.stack([flat(g) for g in gradients]).double()
    optimizer.step(losses, [1.0, 4.0])
    last = optimizer.last
    assert last.losses.tolist() == pytest.approx([loss.item() for loss in losses])
    assert torch.allclose(last.gramian, G @ G.T, rtol=1e-6)
    assert torch.allclose(last.norms, G.norm(dim=1), rtol=1e-6)
    cosine = torch.nn.functional.cosine_similarity(G[0], G[1], dim=0)
    assert last.cosines[0, 1].item() == pytest.approx(cosine.item(), rel=1e-5)
    assert last.cosines.diagonal().tolist() == pytest.approx([1.0, 1.0])
    assert last.coefficients.shape == (2,)


def test_state_dict_round_trip_continues_the_same_run(model: nn.Module, x: Tensor) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters(), lr=1e-2), rho=0.3)
    for _ in range(3):
        optimizer.step(model.losses(x))
    twin = copy.deepcopy(model)
    resumed = CAMEGrad(torch.optim.AdamW(twin.parameters(), lr=1e-2), rho=0.3)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(model.losses(x))
        resumed.step(twin.losses(x))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_state_of_another_kind_is_refused(model: nn.Module) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()), rho=0.3)
    with pytest.raises(ValueError, match=r"saved with \{'rho': 0.5"):
        optimizer.load_state_dict(CAMEGrad(torch.optim.AdamW(model.parameters())).state_dict())
    with pytest.raises(ValueError, match=r"\.optimizer\.load_state_dict"):
        optimizer.load_state_dict(torch.optim.AdamW(model.parameters()).state_dict())


def test_observer_sees_the_gradients_before_they_are_combined(model: nn.Module, x: Tensor) -> None:
    seen = []
    optimizer = CAMEGrad(
        torch.optim.SGD(model.parameters(), lr=0.1),
        observer=lambda gradients, M: seen.append((flat(gradients[0]).clone(), M.clone())),
    )
    gradients = task_gradients(model.losses(x), list(model.parameters()))
    optimizer.step(model.losses(x))
    assert torch.equal(seen[0][0], flat(gradients[0]))
    assert torch.equal(seen[0][1], optimizer.last.gramian)


def test_learning_rate_schedules_drive_the_wrapped_optimizer(model: nn.Module, x: Tensor) -> None:
    inner = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer = CAMEGrad(inner)
    schedule = torch.optim.lr_scheduler.ExponentialLR(inner, gamma=0.5)
    optimizer.step(model.losses(x))
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_methods_differ(model: nn.Module, x: Tensor) -> None:
    """Negative control of the equalities above: CAME-Grad is not linear scalarization."""
    updates = []
    for aggregator in (lambda m: CAMEGrad(m), lambda m: MultiTaskOptimizer(m, linear)):
        twin = copy.deepcopy(model)
        optimizer = aggregator(torch.optim.SGD(twin.parameters(), lr=0.1))
        optimizer.backward(twin.losses(x))
        updates.append(flat([p.grad for p in twin.parameters()]))
    assert (updates[0] - updates[1]).norm() > 0.05 * updates[0].norm()
