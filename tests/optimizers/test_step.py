import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from optimizers import CAMEGrad, MultiTaskOptimizer, NonFiniteError, came_grad, linear, task_gradients


class TwoHeads(nn.Module):
    """A shared trunk with two heads, so that each task leaves a part unreached."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.report, self.disease = nn.Linear(4, 8), nn.Linear(8, 5), nn.Linear(8, 3)

    def losses(self, x: Tensor) -> list[Tensor]:
        h = self.trunk(x).tanh()
        return [self.report(h).square().mean(), (self.disease(h) - 1).square().mean()]


@pytest.fixture
def model() -> TwoHeads:
    return TwoHeads()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 4)


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def snapshot(model: nn.Module, optimizer: MultiTaskOptimizer) -> tuple:
    parameters = [p.detach().clone() for p in model.parameters()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return parameters, grads, copy.deepcopy(optimizer.state_dict())


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(p, q) for p, q in zip(a, b, strict=True))  # type: ignore[arg-type]
    return a == b


def test_gradients_are_those_of_came_grad(model: TwoHeads, x: Tensor) -> None:
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


def test_linear_equals_backward_of_the_weighted_sum(model: TwoHeads, x: Tensor) -> None:
    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), linear)
    optimizer.backward(model.losses(x), [1.0, 4.0])
    ours = flat([p.grad for p in model.parameters()])
    model.zero_grad()
    first, second = model.losses(x)
    (first + 4 * second).backward()
    assert torch.allclose(ours, flat([p.grad for p in model.parameters()]), rtol=1e-5, atol=1e-7)
    assert optimizer.last.alpha is None


def test_the_authors_trainer_runs_unchanged(model: TwoHeads, x: Tensor) -> None:
    """The three calls of the published trainer, with its learning-rate schedule reading param_groups."""
    from optimizers import CAMEGrad as CAME_Grad

    came = CAME_Grad(torch.optim.AdamW(model.parameters(), lr=1e-2), rho=0.5, kappa=1.5, nu=0.2)
    before = [loss.item() for loss in model.losses(x)]
    for step in range(60):
        loss_lm, loss_cls = model.losses(x)
        came.step([loss_lm, loss_cls], task_weights=[1.0, 4.0])
        for group in came.param_groups:
            group["lr"] = 1e-2 * 0.98**step
    after = [loss.item() for loss in model.losses(x)]
    assert all(b < 0.5 * a for a, b in zip(before, after, strict=True))


def test_step_with_losses_ignores_stale_gradients(model: TwoHeads, x: Tensor) -> None:
    twin = copy.deepcopy(model)
    stale = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    for p in model.parameters():
        p.grad = torch.full_like(p, 100.0)
    stale.step(model.losses(x))
    clean = CAMEGrad(torch.optim.SGD(twin.parameters(), lr=0.1))
    clean.backward(twin.losses(x))
    clean.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_backward_accumulates_and_the_caller_may_clip(model: TwoHeads, x: Tensor) -> None:
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


def test_the_graph_is_freed_on_the_last_task(model: TwoHeads, x: Tensor) -> None:
    losses = model.losses(x)
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.backward(losses)
    with pytest.raises(RuntimeError, match="second time"):
        losses[1].backward()


def test_a_parameter_that_a_task_does_not_reach_counts_as_zero(model: TwoHeads, x: Tensor) -> None:
    gradients = task_gradients(model.losses(x), list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    assert gradients[0][names.index("disease.weight")].abs().max() == 0
    assert gradients[1][names.index("report.bias")].abs().max() == 0
    assert gradients[0][names.index("report.bias")].abs().max() > 0


def test_frozen_parameters_are_left_alone(model: TwoHeads, x: Tensor) -> None:
    model.trunk.weight.requires_grad_(False)
    frozen = model.trunk.weight.clone()
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters(), weight_decay=0.5))
    optimizer.step(model.losses(x))
    assert torch.equal(model.trunk.weight, frozen)
    assert model.trunk.weight.grad is None


def test_unfreezing_between_steps_is_followed(model: TwoHeads, x: Tensor) -> None:
    model.trunk.requires_grad_(False)
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.step(model.losses(x))
    model.trunk.requires_grad_(True)
    before = model.trunk.weight.detach().clone()
    optimizer.step(model.losses(x))
    assert not torch.equal(model.trunk.weight, before)


def test_last_describes_the_step(model: TwoHeads, x: Tensor) -> None:
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


def test_state_dict_round_trip_continues_the_same_run(model: TwoHeads, x: Tensor) -> None:
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


def test_a_state_of_another_kind_is_refused(model: TwoHeads) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()), rho=0.3)
    with pytest.raises(ValueError, match=r"saved with \{'rho': 0.5"):
        optimizer.load_state_dict(CAMEGrad(torch.optim.AdamW(model.parameters())).state_dict())
    with pytest.raises(ValueError, match=r"\.optimizer\.load_state_dict"):
        optimizer.load_state_dict(torch.optim.AdamW(model.parameters()).state_dict())


def poisoned_gradient(model: TwoHeads, x: Tensor) -> list[Tensor]:
    """Finite losses, of which the second has an infinite slope at 0."""
    first, second = model.losses(x)
    return [first, second + (model.disease.bias.sum() * 0).sqrt()]


BAD: list[tuple[Callable[[TwoHeads, Tensor], object], dict, type[Exception], str]] = [
    (lambda m, x: [], {}, ValueError, "got none"),
    (lambda m, x: m.losses(x)[0], {}, ValueError, r"one tensor of shape \(\)"),
    (lambda m, x: [m.losses(x)[0], 1.0], {}, ValueError, "task 1 must be a tensor, got float"),
    (
        lambda m, x: [m.losses(x)[0], m.trunk(x)],
        {},
        ValueError,
        r"task 1 must be a scalar, got shape \(6, 8\)",
    ),
    (lambda m, x: [m.losses(x)[0], m.losses(x)[1].detach()], {}, ValueError, "task 1 has no gradient"),
    (
        lambda m, x: [m.losses(x)[0] * float("nan"), m.losses(x)[1]],
        {},
        NonFiniteError,
        "loss of task 0 is nan",
    ),
    (lambda m, x: [m.losses(x)[0], m.losses(x)[1] / 0], {}, NonFiniteError, "loss of task 1 is inf"),
    (poisoned_gradient, {}, NonFiniteError, "gradient of task 1 is not finite"),
    (lambda m, x: m.losses(x), {"task_weights": [1.0, 2.0, 3.0]}, ValueError, "each of the 2 tasks"),
    (lambda m, x: m.losses(x), {"task_weights": [1.0, -1.0]}, ValueError, r"task_weights\[1\] = -1.0"),
    (lambda m, x: m.losses(x), {"task_weights": [0.0, 0.0]}, ValueError, "all zero"),
]


@pytest.mark.parametrize(("losses", "options", "error", "message"), BAD)
@pytest.mark.parametrize("method", ["step", "backward"])
def test_bad_input_is_named_and_changes_nothing(
    model: TwoHeads, x: Tensor, losses: Callable, options: dict, error: type, message: str, method: str
) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()))
    optimizer.step(model.losses(x))
    before = snapshot(model, optimizer)
    with pytest.raises(error, match=message):
        getattr(optimizer, method)(losses(model, x), **options)
    assert same(snapshot(model, optimizer), before)


def test_the_check_that_nothing_changed_can_fail(model: TwoHeads, x: Tensor) -> None:
    """Negative control of the test above: a good step is noticed."""
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()))
    before = snapshot(model, optimizer)
    optimizer.step(model.losses(x))
    assert not same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("bad", [lambda m, x: [m.losses(x)[0], m.losses(x)[1] / 0], poisoned_gradient])
def test_skipping_counts_and_leaves_everything(model: TwoHeads, x: Tensor, bad: Callable) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()), on_nonfinite="skip")
    optimizer.step(model.losses(x))
    parameters, _, state = snapshot(model, optimizer)
    optimizer.step(bad(model, x))
    optimizer.backward(bad(model, x))
    optimizer.step()
    after, _, after_state = snapshot(model, optimizer)
    assert same(parameters, after)
    assert same(state["optimizer"], after_state["optimizer"])
    assert optimizer.skipped == after_state["skipped"] == 2
    optimizer.step(model.losses(x))
    assert optimizer.skipped == 2
    assert not same(after, snapshot(model, optimizer)[0])


def test_a_good_backward_after_a_bad_one_is_stepped(model: TwoHeads, x: Tensor) -> None:
    """zero_grad and a fresh backward supersede a skipped one; the step belongs to the fresh one."""
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), on_nonfinite="skip")
    optimizer.backward(poisoned_gradient(model, x))
    optimizer.zero_grad()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.backward(model.losses(x))
    optimizer.step()
    assert not same(before, [p.detach() for p in model.parameters()])
    assert optimizer.skipped == 0
    optimizer.backward(poisoned_gradient(model, x))
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step(model.losses(x))
    assert not same(before, [p.detach() for p in model.parameters()])


def test_one_bad_micro_batch_skips_the_accumulated_step(model: TwoHeads, x: Tensor) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), on_nonfinite="skip")
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.backward(poisoned_gradient(model, x))
    optimizer.backward(model.losses(x))
    optimizer.step()
    assert same(before, [p.detach() for p in model.parameters()])
    assert optimizer.skipped == 1


def test_observer_sees_the_gradients_before_they_are_combined(model: TwoHeads, x: Tensor) -> None:
    seen = []
    optimizer = CAMEGrad(
        torch.optim.SGD(model.parameters(), lr=0.1),
        observer=lambda gradients, M: seen.append((flat(gradients[0]).clone(), M.clone())),
    )
    gradients = task_gradients(model.losses(x), list(model.parameters()))
    optimizer.step(model.losses(x))
    assert torch.equal(seen[0][0], flat(gradients[0]))
    assert torch.equal(seen[0][1], optimizer.last.gramian)


def test_constructor_refuses_what_cannot_work(model: TwoHeads) -> None:
    with pytest.raises(TypeError, match=r"must be a torch\.optim\.Optimizer, got str"):
        CAMEGrad("adam")
    with pytest.raises(TypeError, match="LBFGS"):
        CAMEGrad(torch.optim.LBFGS(model.parameters()))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="on_nonfinite = 'ignore'"):
        CAMEGrad(sgd, on_nonfinite="ignore")
    with pytest.raises(ValueError, match="rho = 1"):
        CAMEGrad(sgd, rho=1)
    with pytest.raises(TypeError, match="only together with losses"):
        CAMEGrad(sgd).step(task_weights=[1.0])


def test_sparse_gradients_are_refused_by_name() -> None:
    table = nn.Embedding(10, 3, sparse=True)
    optimizer = CAMEGrad(torch.optim.SGD(table.parameters(), lr=0.1))
    loss = table(torch.tensor([1, 2])).square().sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="task 0 for parameter 0 is sparse"):
            optimizer.step([loss])


def test_learning_rate_schedules_drive_the_wrapped_optimizer(model: TwoHeads, x: Tensor) -> None:
    inner = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer = CAMEGrad(inner)
    schedule = torch.optim.lr_scheduler.ExponentialLR(inner, gamma=0.5)
    optimizer.step(model.losses(x))
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_methods_differ(model: TwoHeads, x: Tensor) -> None:
    """Negative control of the equalities above: CAME-Grad is not linear scalarization."""
    updates = []
    for aggregator in (lambda m: CAMEGrad(m), lambda m: MultiTaskOptimizer(m, linear)):
        twin = copy.deepcopy(model)
        optimizer = aggregator(torch.optim.SGD(twin.parameters(), lr=0.1))
        optimizer.backward(twin.losses(x))
        updates.append(flat([p.grad for p in twin.parameters()]))
    assert (updates[0] - updates[1]).norm() > 0.05 * updates[0].norm()
