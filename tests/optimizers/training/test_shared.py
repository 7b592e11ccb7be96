"""Conflicts resolved on the shared parameters only; the heads follow the weighted sum."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad, MultiTaskOptimizer, came_grad, linear, task_gradients

WEIGHTS = [1.0, 4.0]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def heads(model: nn.Module) -> list[nn.Parameter]:
    return [*model.report.parameters(), *model.disease.parameters()]


def test_it_is_came_grad_on_the_trunk_and_the_weighted_sum_on_the_heads(model: nn.Module, x: Tensor) -> None:
    trunk = list(model.trunk.parameters())
    by_hand = came_grad(torch.stack([flat(g) for g in task_gradients(model.losses(x), trunk)]), WEIGHTS)
    of_heads = task_gradients(model.losses(x), heads(model))
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), shared=trunk)
    optimizer.backward(model.losses(x), WEIGHTS)
    assert torch.allclose(flat([p.grad for p in trunk]), by_hand.update, rtol=1e-5, atol=1e-7)
    for p, first, second in zip(heads(model), *of_heads, strict=True):
        assert torch.equal(p.grad, first + 4 * second)
    assert torch.allclose(optimizer.last.coefficients, by_hand.coefficients.double(), rtol=1e-5)


def test_it_differs_from_resolving_on_all_parameters(model: nn.Module, x: Tensor) -> None:
    """Negative control, on the trunk and on the heads."""
    updates = []
    for shared in (None, model.trunk.parameters()):
        optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), shared=shared)
        optimizer.zero_grad()
        optimizer.backward(model.losses(x), WEIGHTS)
        updates.append((flat([p.grad for p in model.trunk.parameters()]), flat([p.grad for p in heads(model)])))
    for everywhere, on_shared in zip(*updates, strict=True):
        assert (everywhere - on_shared).norm() > 0.01 * on_shared.norm()


def test_all_parameters_shared_is_the_default(model: nn.Module, x: Tensor) -> None:
    grads = []
    for shared in (None, model.parameters()):
        optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), shared=shared)
        optimizer.zero_grad()
        optimizer.backward(model.losses(x))
        grads.append(flat([p.grad for p in model.parameters()]))
    assert torch.equal(*grads)


def test_order_and_groups_of_parameters_do_not_matter(model: nn.Module, x: Tensor) -> None:
    """Heads first, or in groups of their own with another learning rate."""
    twin = copy.deepcopy(model)
    plain = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), shared=model.trunk.parameters())
    groups = [
        {"params": twin.disease.parameters(), "lr": 0.1},
        {"params": reversed(list(twin.trunk.parameters()))},
        {"params": twin.report.parameters(), "lr": 0.1},
    ]
    grouped = CAMEGrad(torch.optim.SGD(groups, lr=0.2), shared=twin.trunk.parameters())
    before = parameters_to_vector(twin.trunk.parameters())
    plain.step(model.losses(x), WEIGHTS)
    grouped.step(twin.losses(x), WEIGHTS)
    for p, q in zip(heads(model), heads(twin), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-7)
    moved, moved_twice = (parameters_to_vector(m.trunk.parameters()) - before for m in (model, twin))
    assert torch.allclose(2 * moved, moved_twice, rtol=1e-4, atol=1e-7)


def test_jacobian_aggregators_see_the_shared_columns_only(model: nn.Module, x: Tensor) -> None:
    class First:
        def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
            assert jacobian.shape == (2, 40)
            return jacobian[0] + 0

    trunk = list(model.trunk.parameters())
    of_trunk, of_heads = task_gradients(model.losses(x), trunk), task_gradients(model.losses(x), heads(model))
    MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), First(), shared=trunk).backward(model.losses(x))
    assert all(torch.equal(p.grad, g) for p, g in zip(trunk, of_trunk[0], strict=True))
    assert all(torch.equal(p.grad, a + b) for p, a, b in zip(heads(model), *of_heads, strict=True))


def test_the_observer_sees_the_shared_gradients(model: nn.Module, x: Tensor) -> None:
    """Zeros where a task does not reach, so that every step has the same columns."""
    seen = []
    shared = [*model.trunk.parameters(), *model.report.parameters()]
    optimizer = CAMEGrad(
        torch.optim.SGD(model.parameters(), lr=0.1), shared=shared, observer=lambda g, M: seen.append((g, M))
    )
    expected = task_gradients(model.losses(x), shared)
    optimizer.step(model.losses(x))
    ((gradients, gramian),) = seen
    assert all(torch.equal(flat(a), flat(b)) for a, b in zip(gradients, expected, strict=True))
    G = torch.stack([flat(g) for g in expected]).double()
    assert torch.allclose(gramian, G @ G.T, rtol=1e-12)


@pytest.mark.parametrize("every", [1, 2])
def test_a_frozen_trunk_leaves_the_weighted_sum_on_the_heads(model: nn.Module, x: Tensor, every: int) -> None:
    optimizer = CAMEGrad(
        torch.optim.SGD(model.parameters(), lr=0.1), shared=model.trunk.parameters(), refresh_every=every
    )
    model.trunk.requires_grad_(False)
    of_heads = task_gradients(model.losses(x), heads(model))
    for _ in range(2):
        optimizer.zero_grad()
        optimizer.backward(model.losses(x), WEIGHTS)
        for p, a, b in zip(heads(model), *of_heads, strict=True):
            assert torch.allclose(p.grad, a + 4 * b, rtol=1e-6)
    assert optimizer.last.gramian.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_steps_between_solutions_treat_the_heads_alike(model: nn.Module, x: Tensor) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.0), shared=model.trunk.parameters(), refresh_every=2)
    grads = []
    for _ in range(2):
        optimizer.zero_grad()
        optimizer.backward(model.losses(x), WEIGHTS)
        grads.append(flat([p.grad for p in model.parameters()]))
    assert not optimizer.last.fresh
    assert torch.allclose(*grads, rtol=1e-5, atol=1e-7)


def test_state_and_resume(model: nn.Module, x: Tensor) -> None:
    def build(model: nn.Module) -> CAMEGrad:
        return CAMEGrad(torch.optim.AdamW(model.parameters(), lr=1e-2), shared=model.trunk.parameters())

    optimizer = build(model)
    optimizer.step(model.losses(x))
    twin = copy.deepcopy(model)
    resumed = build(twin)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        optimizer.step(model.losses(x))
        resumed.step(twin.losses(x))
    assert torch.equal(parameters_to_vector(model.parameters()), parameters_to_vector(twin.parameters()))


def test_wrong_sets_are_refused(model: nn.Module) -> None:
    inner = torch.optim.SGD(model.trunk.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="2 of the 4 shared parameters are not in the optimizer"):
        CAMEGrad(inner, shared=[*model.trunk.parameters(), *model.report.parameters()])
    with pytest.raises(ValueError, match="shared holds no parameter; None resolves"):
        MultiTaskOptimizer(inner, linear, shared=[])
