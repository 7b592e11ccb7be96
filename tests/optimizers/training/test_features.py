"""features=z: the Gramian of ∂L_i/∂z, K backwards through the heads only, one through the shared part."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.utils.checkpoint import checkpoint

from optimizers import CAMEGrad, MultiTaskOptimizer, NonFiniteError, came_grad, linear, task_gradients

WEIGHTS = [1.0, 4.0]


def heads(model: nn.Module, z: Tensor) -> list[Tensor]:
    h = z.tanh()
    return [model.report(h).square().mean(), (model.disease(h) - 1).square().mean()]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def gradient(module: nn.Module) -> Tensor:
    return flat([p.grad for p in module.parameters()])


def build(model: nn.Module, **options: Any) -> CAMEGrad:
    return CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_it_is_the_method_on_the_features_pulled_back(model: nn.Module, x: Tensor) -> None:
    z = model.trunk(x)
    of_features = task_gradients(heads(model, z), [z])
    expected = came_grad(torch.stack([flat(g) for g in of_features]), WEIGHTS)
    of_heads = task_gradients(heads(model, z), [*model.report.parameters(), *model.disease.parameters()])
    pulled = torch.autograd.grad(z, list(model.trunk.parameters()), expected.update.view_as(z))
    optimizer = build(model)
    z = model.trunk(x)
    optimizer.backward(heads(model, z), WEIGHTS, features=z)
    assert torch.allclose(gradient(model.trunk), flat(list(pulled)), rtol=1e-5, atol=1e-7)
    found = flat([gradient(model.report), gradient(model.disease)])
    assert torch.allclose(found, flat([a + 4 * b for a, b in zip(*of_heads, strict=True)]), rtol=1e-6, atol=1e-8)
    assert torch.allclose(optimizer.last.coefficients, expected.coefficients.double(), rtol=1e-5)


def test_it_is_exact_where_the_shared_part_is_an_isometry() -> None:
    """z = xWᵀ with orthonormal rows x: ∂L/∂W = (∂L/∂z)ᵀx has the norms and angles of ∂L/∂z, so M_z = M."""
    x = torch.linalg.qr(torch.randn(8, 5, dtype=torch.float64))[0].T
    trunk = nn.Linear(8, 6, bias=False).double()
    task = [nn.Linear(6, 2).double(), nn.Linear(6, 3).double()]
    inner = torch.optim.SGD([*trunk.parameters(), *task[0].parameters(), *task[1].parameters()], lr=0.1)
    gramians, grads = [], []
    for through_features in (True, False):
        optimizer = CAMEGrad(inner, shared=None if through_features else trunk.parameters())
        optimizer.zero_grad()
        z = trunk(x)
        losses = [task[0](z).square().mean(), (task[1](z) - 1).square().mean()]
        optimizer.backward(losses, WEIGHTS, features=z if through_features else None)
        gramians.append(optimizer.last.gramian)
        grads.append(flat([trunk.weight.grad, task[0].weight.grad, task[1].bias.grad]).clone())
    assert torch.allclose(*gramians, rtol=1e-12)
    assert torch.allclose(*grads, rtol=1e-10, atol=1e-14)


def test_it_is_an_approximation_elsewhere(model: nn.Module, x: Tensor) -> None:
    """Negative control: at a general x the two Gramians are not proportional, and the steps differ."""
    updates, cosines = [], []
    for through_features in (True, False):
        optimizer = build(model, shared=None if through_features else model.trunk.parameters())
        optimizer.zero_grad()
        z = model.trunk(x)
        optimizer.backward(heads(model, z), WEIGHTS, features=z if through_features else None)
        updates.append(gradient(model.trunk).clone())
        cosines.append(optimizer.last.cosines[0, 1].item())
    assert abs(cosines[0] - cosines[1]) > 1e-3
    assert (updates[0] - updates[1]).norm() > 1e-3 * updates[1].norm()


def test_linear_scalarization_does_not_notice(model: nn.Module, x: Tensor) -> None:
    """The coefficients do not depend on the Gramian, and the chain rule is linear."""
    z = model.trunk(x)
    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), linear)
    optimizer.backward(heads(model, z), WEIGHTS, features=z)
    found = gradient(model)
    optimizer.zero_grad()
    first, second = model.losses(x)
    (first + 4 * second).backward()
    assert torch.allclose(found, gradient(model), rtol=1e-5, atol=1e-7)


def test_tasks_go_back_through_their_heads_only(model: nn.Module, x: Tensor) -> None:
    """The trunk is passed once, each head once; the graph is freed at the end."""
    passes: list[str] = []
    x = x.requires_grad_()
    z = model.trunk(x)
    x.register_hook(lambda _: passes.append("input"))
    z.grad_fn.register_hook(lambda *_: passes.append("trunk"))
    losses = heads(model, z)
    for task, loss in enumerate(losses):
        loss.grad_fn.register_hook(lambda *_, task=task: passes.append(f"head {task}"))
    build(model).backward(losses, features=z)
    assert passes == ["head 0", "head 1", "trunk"]
    with pytest.raises(RuntimeError, match="second time"):
        z.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(losses[1], z)


def test_without_features_the_trunk_is_passed_once_a_task(model: nn.Module, x: Tensor) -> None:
    """Negative control of the counter."""
    passes: list[str] = []
    z = model.trunk(x)
    z.grad_fn.register_hook(lambda *_: passes.append("trunk"))
    build(model).backward(heads(model, z))
    assert passes == ["trunk", "trunk"]


def test_several_features_are_one_vector(model: nn.Module, x: Tensor) -> None:
    z, extra = model.trunk(x), model.trunk(x + 1)
    first = heads(model, z)[0] + heads(model, extra)[0]
    second = heads(model, extra)[1]
    G = torch.stack([flat(g) for g in task_gradients([first, second], [z, extra])]).double()
    z, extra = model.trunk(x), model.trunk(x + 1)
    optimizer = build(model)
    optimizer.backward([heads(model, z)[0] + heads(model, extra)[0], heads(model, extra)[1]], features=[z, extra])
    assert torch.allclose(optimizer.last.gramian, G @ G.T, rtol=1e-6)


def test_a_loss_scale_is_taken_out_and_put_back(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model)
    z = model.trunk(x)
    optimizer.backward(heads(model, z), WEIGHTS, features=z)
    plain, last = gradient(model).clone(), optimizer.last
    optimizer.zero_grad()
    z = model.trunk(x)
    optimizer.backward([1024 * loss for loss in heads(model, z)], WEIGHTS, scale=1024.0, features=z)
    assert torch.equal(gradient(model), 1024 * plain)
    assert torch.equal(optimizer.last.gramian, last.gramian)


def test_reused_coefficients_go_back_once_through_everything(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model, refresh_every=2)
    z = model.trunk(x)
    optimizer.step(heads(model, z), WEIGHTS, features=z)
    c = optimizer.last.coefficients.tolist()
    expected = task_gradients(model.losses(x), [model.trunk.weight, model.report.weight])
    z = model.trunk(x)
    optimizer.step(heads(model, z), WEIGHTS, features=z)
    assert not optimizer.last.fresh
    assert torch.allclose(model.trunk.weight.grad, c[0] * expected[0][0] + c[1] * expected[1][0], rtol=1e-4, atol=1e-7)
    assert torch.allclose(model.report.weight.grad, expected[0][1], rtol=1e-5, atol=1e-8)


def test_training_with_it_reduces_the_losses(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model)
    start = [loss.item() for loss in model.losses(x)]
    for _ in range(200):
        z = model.trunk(x)
        optimizer.step(heads(model, z), features=z)
    assert all(loss.item() < 0.5 * before for loss, before in zip(model.losses(x), start, strict=True))


def test_a_bad_gradient_changes_nothing(model: nn.Module, x: Tensor, unchanged: Any) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()), refresh_every=2, ema=0.5)
    z = model.trunk(x)
    optimizer.step(heads(model, z), features=z)
    optimizer.step(model.losses(x))
    z = model.trunk(x)
    first, second = heads(model, z)
    with unchanged(model, optimizer), pytest.raises(NonFiniteError, match="gradient of task 1 is not finite"):
        optimizer.step([first, second + (z.sum() * 0).sqrt()], features=z)
    z = (model.trunk.weight.sum() * 0).sqrt() + model.trunk(x)
    with unchanged(model, optimizer), pytest.raises(NonFiniteError, match="gradient of the update is not finite"):
        optimizer.step(heads(model, z), features=z)


def test_what_cannot_be_done_is_refused(model: nn.Module, x: Tensor) -> None:
    optimizer = build(model)
    z = model.trunk(x)
    leaf = z.detach().requires_grad_()
    for features, losses, message in (
        ([], heads(model, z), "features holds no tensor"),
        ([z, 3], heads(model, z), r"features\[1\] must be a tensor, got int"),
        (z.detach(), heads(model, z), r"features\[0\] is computed without grad or detached"),
        (leaf, heads(model, leaf), r"features\[0\] is a leaf; pass the very tensor"),
        (model.trunk(x), heads(model, z), "both through features and past them"),
        (model.trunk(x), [model.report(x.new_ones(6, 8)).sum()] * 2, "no loss was computed from features"),
        ([z, z.tanh()], heads(model, z), "one of the features was computed from another"),
        (z, [heads(model, z)[0], heads(model, z)[1] + model.trunk.bias.sum()], "both through features and past them"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.backward(losses, features=features)
    with pytest.raises(ValueError, match="construct the optimizer without shared="):
        build(model, shared=model.trunk.parameters()).backward(heads(model, z), features=z)
    optimizer.accumulate(model.losses(x))
    with pytest.raises(ValueError, match="features cannot follow accumulated micro-batches"):
        optimizer.backward(heads(model, z), features=z)
    with pytest.raises(TypeError, match="only together with losses"):
        optimizer.step(features=z)

    class Sum:
        def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
            return jacobian.sum(0)

    with pytest.raises(ValueError, match="features need coefficients, which Sum does not have"):
        MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), Sum()).backward(heads(model, z), features=z)
    x.requires_grad_()
    hidden = checkpoint(model.trunk, x, use_reentrant=True)
    with pytest.raises(ValueError, match="use_reentrant=True, which hides its parameters"):
        build(model).backward(heads(model, hidden), features=hidden)


def test_training_is_the_same_as_by_hand_over_steps(model: nn.Module, x: Tensor) -> None:
    """Sener and Koltun's two passes, written out: heads first, then the trunk through the combination."""
    twin = copy.deepcopy(model)
    optimizer, inner = build(model), torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        z = model.trunk(x)
        optimizer.step(heads(model, z), WEIGHTS, features=z)
        inner.zero_grad()
        z = twin.trunk(x)
        cut = z.detach().requires_grad_()
        first, second = heads(twin, cut)
        G = torch.stack([flat(g) for g in task_gradients(heads(twin, cut), [cut])])
        (first + 4 * second).backward()
        z.backward(came_grad(G, WEIGHTS).update.view_as(z))
        inner.step()
    ends = [parameters_to_vector(m.parameters()) for m in (model, twin)]
    assert torch.allclose(*ends, rtol=1e-5, atol=1e-6)
