"""ConflictMonitor: what it measures, and that training beside it stays as it is."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.utils.checkpoint import checkpoint

from optimizers import came_grad, task_gradients
from optimizers.monitor import ConflictMonitor

WEIGHTS = [1.0, 4.0]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


class Noisy(nn.Module):
    """Dropout, once within a checkpoint, which draws again while it goes backward."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.inner, self.dropout = nn.Linear(4, 8), nn.Linear(8, 8), nn.Dropout(0.3)
        self.report, self.disease = nn.Linear(8, 5), nn.Linear(8, 3)

    def losses(self, x: Tensor) -> list[Tensor]:
        h = self.dropout(self.trunk(x).tanh())
        h = checkpoint(lambda h: self.dropout(self.inner(h)), h, use_reentrant=False)
        return [self.report(h).square().mean(), (self.disease(h) - 1).square().mean()]


def train(model: nn.Module, monitor: ConflictMonitor | None, steps: int = 8) -> list[Tensor]:
    """Losses and parameters of a plain loop, and the random numbers that follow it."""
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trace = []
    for _ in range(steps):
        losses = model.losses(torch.randn(6, 4))
        if monitor is not None:
            monitor(losses, WEIGHTS)
        (losses[0] + 4 * losses[1]).backward()
        trace += [parameters_to_vector([p.grad for p in model.parameters()]), torch.stack(losses).detach()]
        optimizer.step()
        optimizer.zero_grad()
    return [*trace, parameters_to_vector(model.parameters()).detach(), torch.rand(3)]


@pytest.mark.parametrize("every", [1, 3])
def test_training_with_it_is_the_same_to_the_last_bit(every: int) -> None:
    model = Noisy()
    watched, twin = copy.deepcopy(model), copy.deepcopy(model)
    monitor = ConflictMonitor(watched.parameters(), every=every)
    for a, b in zip(train(watched, monitor), train(twin, None), strict=True):
        assert torch.equal(a, b)
    assert len(monitor.readings) == math.ceil(8 / every)


def test_the_comparison_finds_a_random_number_too_many() -> None:
    """Negative control: a monitor that draws one changes the run."""

    class Drawing(ConflictMonitor):
        def __call__(self, *args: object) -> None:
            torch.rand(1)

    model = Noisy()
    runs = [train(copy.deepcopy(model), Drawing(model.parameters()) if which else None) for which in (0, 1)]
    assert not torch.equal(runs[0][-2], runs[1][-2])


def test_a_backward_that_draws_is_undone(model: nn.Module, x: Tensor) -> None:
    """A gradient that is random by itself, as of a stochastic rounding, does not move the loop's generator."""

    class Drawing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, y: Tensor) -> Tensor:
            return y.clone()

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad * torch.rand_like(grad)

    state = torch.get_rng_state()
    ConflictMonitor(model.parameters())([Drawing.apply(loss) for loss in model.losses(x)])
    assert torch.equal(torch.get_rng_state(), state)


def test_it_leaves_gradients_alone(model: nn.Module, x: Tensor) -> None:
    monitor = ConflictMonitor(model.parameters())
    monitor(model.losses(x))
    assert all(p.grad is None for p in model.parameters())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    monitor(model.losses(x))
    assert all((p.grad == 1).all() for p in model.parameters())


def test_what_it_reads(model: nn.Module, x: Tensor) -> None:
    trunk = list(model.trunk.parameters())
    reading = ConflictMonitor(trunk, rho=0.3)(model.losses(x), WEIGHTS)
    G = torch.stack([flat(g) for g in task_gradients(model.losses(x), trunk)]).double()
    expected = came_grad(G, WEIGHTS, rho=0.3)
    cosine = nn.functional.cosine_similarity(G[0], G[1], dim=0).item()
    assert torch.allclose(reading.gramian, G @ G.T, rtol=1e-6)
    assert torch.allclose(reading.norms, G.norm(dim=1), rtol=1e-6)
    assert reading.cosines[0, 1].item() == pytest.approx(cosine, rel=1e-5)
    assert reading.angles[0, 1].item() == pytest.approx(math.degrees(math.acos(cosine)), rel=1e-5)
    assert reading.conflict_rate == float(cosine < 0)
    assert reading.harmed.tolist() == (G @ expected.joint < 0).tolist()
    assert reading.dual_value == pytest.approx(expected.dual_value.item(), rel=1e-5)
    assert reading.valid is bool(expected.valid)
    between = nn.functional.cosine_similarity(expected.rectified, expected.joint, dim=0).item()
    assert reading.angle_to_linear == pytest.approx(math.degrees(math.acos(between)), rel=1e-3)
    unit = expected.rectified / expected.rectified.norm() - expected.joint / expected.joint.norm()
    assert reading.distance_to_linear == pytest.approx(unit.norm().item(), rel=1e-3)


def linear_losses(x: Tensor, G: list[list[float]]) -> list[Tensor]:
    return [torch.tensor(row) @ x for row in G]


@pytest.mark.parametrize(
    ("G", "rate", "harmed", "valid"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 0.0, [False, False], True),
        ([[1.0, 0.0], [-2.0, 0.1]], 1.0, [True, False], False),
        ([[1.0, 0.0], [-0.6, 0.8], [0.0, 1.0]], 1 / 3, [False, False, False], True),
        ([[1.0, 0.0], [0.0, 0.0]], 0.0, [False, False], True),
        ([[1.0, 0.0]], 0.0, [False], True),
        ([[0.0, 0.0], [0.0, 0.0]], 0.0, [False, False], True),
    ],
)
def test_readings_by_hand(G: list[list[float]], rate: float, harmed: list[bool], valid: bool) -> None:
    x = nn.Parameter(torch.zeros(2))
    reading = ConflictMonitor([x])(linear_losses(x, G))
    assert reading.conflict_rate == pytest.approx(rate)
    assert reading.harmed.tolist() == harmed
    assert reading.valid is valid


def test_averages_are_over_the_window() -> None:
    x = nn.Parameter(torch.zeros(2))
    monitor = ConflictMonitor([x], window=3)
    assert monitor.averages() == {"readings": 0}
    agreeing, conflicting = [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-1.0, 1.0]]
    for G in [conflicting] * 4 + [agreeing, agreeing]:
        monitor(linear_losses(x, G))
    averages = monitor.averages()
    assert averages["readings"] == 3
    assert averages["conflict_rate"] == averages["any_conflict"] == pytest.approx(1 / 3)
    assert averages["conflicts"][0][1] == pytest.approx(1 / 3)
    assert averages["norms"] == pytest.approx([1.0, (2 + math.sqrt(2)) / 3])
    assert averages["cosines"][0][1] == pytest.approx((2 - math.sqrt(0.5)) / 3)
    assert averages["valid"] == pytest.approx(1.0)


def test_it_only_measures_on_every_nth_call(model: nn.Module, x: Tensor) -> None:
    passes: list[int] = []
    monitor = ConflictMonitor(model.parameters(), every=3)
    for call in range(7):
        z = model.trunk(x)
        z.register_hook(lambda _, call=call: passes.append(call))
        reading = monitor([z.square().sum(), z.sum()])
        assert (reading is not None) == (call % 3 == 0)
        assert reading is None or reading.step == call
    assert passes == [0, 0, 3, 3, 6, 6]


def test_what_is_not_finite_is_counted_and_not_averaged(model: nn.Module, x: Tensor) -> None:
    monitor = ConflictMonitor(model.parameters())
    first, second = model.losses(x)
    assert monitor([first, second * torch.nan]) is None
    assert monitor([first, second + (model.trunk.bias.sum() * 0).sqrt()]) is None
    assert (monitor.nonfinite, monitor.averages()) == (2, {"readings": 0})
    assert monitor([first, second]) is not None


def test_what_cannot_be_measured_is_refused(model: nn.Module, x: Tensor) -> None:
    for options, message in (
        ({"every": 0}, "every = 0 must be >= 1"),
        ({"window": 0}, "window = 0 must be >= 1"),
        ({"rho": 1.0}, r"rho = 1.0 must lie in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ConflictMonitor(model.parameters(), **options)
    with pytest.raises(ValueError, match="holds no parameter"):
        ConflictMonitor([])
    monitor = ConflictMonitor(model.parameters())
    with pytest.raises(ValueError, match="reach none of the monitored parameters"):
        monitor([loss for loss in copy.deepcopy(model).losses(x)])
    with pytest.raises(ValueError, match="loss of task 0 has no gradient"):
        monitor([loss.detach() for loss in model.losses(x)])
    monitor(model.losses(x))
    with pytest.raises(ValueError, match="got 1 losses after 2"):
        monitor(model.losses(x)[:1])


def test_frozen_parameters_are_left_out(model: nn.Module, x: Tensor) -> None:
    model.trunk.weight.requires_grad_(False)
    reading = ConflictMonitor(model.trunk.parameters())(model.losses(x))
    (first,), (second,) = task_gradients(model.losses(x), [model.trunk.bias])
    assert reading.gramian[0, 1].item() == pytest.approx((first @ second).item(), rel=1e-5)
