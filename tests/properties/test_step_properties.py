"""Named properties of the training step, over random models, batches, splits and scales.

Coefficients may depend on the last bits of the Gramian where a solver is ill-conditioned. So the tests say that the
Gramian is right to rounding, that the coefficients are the aggregator's for that Gramian, and that the update is made
of the task gradients with these coefficients, to rounding too.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import zoo
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from optimizers import (
    CAMEGrad,
    MultiTaskOptimizer,
    cagrad,
    came_grad_coefficients,
    linear,
    mgda,
    pcgrad,
    task_gradients,
)

CONSISTENT = {"center": "weighted", "fusion": "adaptive"}
AGGREGATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "came-grad": came_grad_coefficients,
    "weighted": partial(came_grad_coefficients, **CONSISTENT),
    "linear": linear,
    "cagrad": cagrad,
    "mgda": mgda,
    "pcgrad": pcgrad,
}
names = st.sampled_from(sorted(AGGREGATORS))
EPS = torch.finfo(torch.float64).eps


class Problem:
    """K losses, each the mean over a batch of a smooth function of a linear model's outputs, and weights."""

    def __init__(self, seed: int, tasks: int, *, dtype: torch.dtype = torch.float64, batch: int = 12) -> None:
        generator = torch.Generator().manual_seed(seed)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.weights = torch.rand(tasks, generator=generator, dtype=torch.float64) + 0.1
        self.parameters = [nn.Parameter(randn(5, 3)), nn.Parameter(randn(3)), nn.Parameter(randn(tasks, 3))]
        self.x, self.targets = randn(batch, 5), randn(batch, tasks)

    def losses(self, rows: slice | Tensor = slice(None), order: list[int] | None = None) -> list[Tensor]:
        matrix, bias, heads = self.parameters
        outputs = (self.x[rows] @ matrix + bias).tanh() @ heads.T
        each = (outputs - self.targets[rows]).square().mean(0)
        return [each[task] for task in (order if order is not None else range(len(each)))]

    def optimizer(self, name: str) -> MultiTaskOptimizer:
        inner = torch.optim.SGD(self.parameters, lr=0.1)
        if name in ("came-grad", "weighted"):
            return CAMEGrad(inner, **(CONSISTENT if name == "weighted" else {}))  # type: ignore[arg-type]
        return MultiTaskOptimizer(inner, AGGREGATORS[name])

    def jacobian(self) -> Tensor:
        """By autograd, one task at a time."""
        gradients = task_gradients(self.losses(), self.parameters)
        return torch.stack([torch.cat([part.reshape(-1) for part in of_task]) for of_task in gradients])

    def gradient(self) -> Tensor:
        found = torch.cat([p.grad.reshape(-1) for p in self.parameters])
        for p in self.parameters:
            p.grad = None
        return found


def assert_made_of(G: Tensor, update: Tensor, optimizer: MultiTaskOptimizer, name: str, weights: Tensor) -> None:
    """Gramian and update to 64 ε, of the largest ‖g_i‖² and of Σ|c_i|‖g_i‖; coefficients to the last bit."""
    assert optimizer.last is not None
    M, c = optimizer.last.gramian, optimizer.last.coefficients
    assert c is not None
    assert torch.allclose(M, G @ G.T, rtol=0, atol=64 * EPS * G.square().sum(1).max().item())
    assert torch.equal(c, AGGREGATORS[name](M, weights))
    assert (update - c @ G).norm() <= 64 * EPS * float(c.abs() @ G.norm(dim=1))


@given(name=names, seed=zoo.seeds, tasks=st.integers(1, 5))
def test_the_update_is_made_of_the_task_gradients(name: str, seed: int, tasks: int) -> None:
    problem = Problem(seed, tasks)
    optimizer = problem.optimizer(name)
    optimizer.backward(problem.losses(), problem.weights)
    assert_made_of(problem.jacobian(), problem.gradient(), optimizer, name, problem.weights)


@given(name=names, seed=zoo.seeds, tasks=st.integers(1, 5), cuts=st.sets(st.integers(1, 11), max_size=5))
def test_any_split_of_a_batch_equals_the_whole(name: str, seed: int, tasks: int, cuts: set[int]) -> None:
    """Micro-batches of unequal sizes, each loss weighted by its share of the batch."""
    problem = Problem(seed, tasks)
    optimizer = problem.optimizer(name)
    *first, last = [slice(a, b) for a, b in pairwise([0, *sorted(cuts), 12])]
    for rows in first:
        optimizer.accumulate([loss * (rows.stop - rows.start) / 12 for loss in problem.losses(rows)], problem.weights)
    optimizer.backward([loss * (last.stop - last.start) / 12 for loss in problem.losses(last)], problem.weights)
    losses = torch.stack(problem.losses()).detach()
    assert torch.allclose(optimizer.last.losses, losses, rtol=16 * EPS, atol=0)
    assert_made_of(problem.jacobian(), problem.gradient(), optimizer, name, problem.weights)


@given(name=names, seed=zoo.seeds, tasks=st.integers(2, 5), shuffle=zoo.seeds)
def test_permuting_the_tasks_permutes_only_the_coefficients(name: str, seed: int, tasks: int, shuffle: int) -> None:
    problem = Problem(seed, tasks)
    optimizer = problem.optimizer(name)
    order = np.random.default_rng(shuffle).permutation(tasks).tolist()
    optimizer.backward(problem.losses(order=order), problem.weights[order])
    permuted = problem.gradient()
    assert_made_of(problem.jacobian()[order], permuted, optimizer, name, problem.weights[order])
    optimizer.backward(problem.losses(), problem.weights)
    plain = problem.gradient()
    if name == "linear":
        assert (permuted - plain).norm() <= 64 * EPS * plain.norm()
    if name == "pcgrad":
        return
    assert (permuted - plain).norm() <= 1e-6 * plain.norm()


def test_the_order_matters_to_pcgrad() -> None:
    """Negative control: PCGrad in the tasks' order is not symmetric for K > 2."""
    spread = []
    for seed in range(10):
        problem = Problem(seed, 5)
        optimizer = problem.optimizer("pcgrad")
        ends = []
        for order in ([0, 1, 2, 3, 4], [4, 1, 3, 0, 2]):
            optimizer.backward(problem.losses(order=order))
            ends.append(problem.gradient())
        spread.append((ends[0] - ends[1]).norm() / ends[0].norm())
    assert max(spread) > 1e-3


@given(name=names, seed=zoo.seeds, tasks=st.integers(1, 5), power=st.integers(-100, 100))
def test_scaling_all_losses_scales_the_update_to_the_last_bit(name: str, seed: int, tasks: int, power: int) -> None:
    """From 1e-30 to 1e30 in float32, by powers of two, as long as no entry leaves its normal range."""
    problem = Problem(seed, tasks, dtype=torch.float32)
    G = problem.jacobian()
    assume(float(G[G != 0].abs().min()) * 2.0**power >= torch.finfo(torch.float32).tiny)
    optimizer = problem.optimizer(name)
    optimizer.backward(problem.losses(), problem.weights)
    plain, last = problem.gradient(), optimizer.last
    optimizer.backward([loss * 2.0**power for loss in problem.losses()], problem.weights)
    assert torch.equal(optimizer.last.gramian, last.gramian * 4.0**power)
    assert torch.equal(optimizer.last.coefficients, last.coefficients)
    assert torch.allclose(problem.gradient(), plain * 2.0**power, rtol=0, atol=torch.finfo(torch.float32).tiny)


@given(name=names, seed=zoo.seeds, tasks=st.integers(1, 5), power=st.integers(-60, 60))
def test_a_loss_scale_that_is_a_power_of_two_changes_no_bit(name: str, seed: int, tasks: int, power: int) -> None:
    """What scale= takes out of the gradients and puts back: the same coefficients, and the update times the scale."""
    problem = Problem(seed, tasks)
    optimizer = problem.optimizer(name)
    optimizer.backward(problem.losses(), problem.weights)
    plain, last = problem.gradient(), optimizer.last
    scale = 2.0**power
    optimizer.backward([loss * scale for loss in problem.losses()], problem.weights, scale=scale)
    assert torch.equal(optimizer.last.coefficients, last.coefficients)
    assert torch.equal(optimizer.last.gramian, last.gramian)
    assert torch.equal(problem.gradient(), plain * scale)


@given(seed=zoo.seeds, tasks=st.integers(1, 4), every=st.integers(1, 4), steps=st.integers(1, 6))
def test_reused_coefficients_solve_on_every_nth_step(seed: int, tasks: int, every: int, steps: int) -> None:
    problem = Problem(seed, tasks)
    optimizer = CAMEGrad(torch.optim.SGD(problem.parameters, lr=0.01), refresh_every=every)
    fresh = []
    for _ in range(steps):
        optimizer.step(problem.losses(), problem.weights)
        fresh.append(optimizer.last.fresh)
    assert fresh == [step % every == 0 for step in range(steps)]


@given(seed=zoo.seeds, tasks=st.integers(2, 4))
def test_shared_parameters_in_any_order_give_one_update(seed: int, tasks: int) -> None:
    problem = Problem(seed, tasks)
    ends = []
    for shared in (problem.parameters[:2], problem.parameters[1::-1]):
        optimizer = CAMEGrad(torch.optim.SGD(problem.parameters, lr=0.1), shared=shared)
        optimizer.backward(problem.losses(), problem.weights)
        ends.append(problem.gradient())
    assert torch.equal(*ends)
