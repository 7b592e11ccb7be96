"""Scales, precisions and numbers of tasks; and what no public function takes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from optimizers import (
    CAMEGrad,
    MultiTaskOptimizer,
    NonFiniteError,
    cagrad,
    came_grad,
    came_grad_coefficients,
    came_grad_stages,
    gramian,
    linear,
    mgda,
    pcgrad,
    solve_dual,
    task_gradients,
)
from optimizers.monitor import ConflictMonitor

EPS = torch.finfo(torch.float64).eps
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])
AGGREGATORS: dict[str, Callable[..., Tensor]] = {
    "came-grad": came_grad_coefficients,
    "weighted": partial(came_grad_coefficients, center="weighted", fusion="adaptive"),
    "linear": linear,
    "cagrad": cagrad,
    "mgda": mgda,
    "pcgrad": pcgrad,
}


class Linear:
    """K losses g_iᵀx, whose gradients are the given rows in any dtype."""

    def __init__(self, G: Tensor) -> None:
        self.G, self.x = G, nn.Parameter(torch.zeros(G.shape[1], dtype=G.dtype))

    def losses(self) -> list[Tensor]:
        return list((self.G @ self.x).unbind())


@given(
    seed=zoo.seeds,
    tasks=st.integers(1, 32),
    dtype=dtypes,
    exponent=st.integers(-30, 30),
    kind=st.sampled_from(["independent", "low_rank", "stationary", "duplicated", "zero_row", "opposite"]),
    name=st.sampled_from(sorted(AGGREGATORS)),
)
def test_a_step_is_made_of_its_gradients_at_every_scale(
    seed: int, tasks: int, dtype: torch.dtype, exponent: int, kind: str, name: str
) -> None:
    """The Gramian is that of the rounded gradients in float64, the update Gᵀc to the dtype's rounding."""
    G = (torch.from_numpy(zoo.sample(kind, tasks, seed)) * 10.0**exponent).to(dtype)
    problem = Linear(G)
    optimizer = MultiTaskOptimizer(torch.optim.SGD([problem.x], lr=0.0), AGGREGATORS[name])
    optimizer.backward(problem.losses())
    exact = G.double()
    M, c = optimizer.last.gramian, optimizer.last.coefficients
    largest = M.diagonal().max()
    assert torch.allclose(M, exact @ exact.T, rtol=0, atol=64 * EPS * largest.item())
    assert problem.x.grad.dtype == dtype
    size = float(c.abs() @ exact.norm(dim=1))
    error = (problem.x.grad.double() - c @ exact).norm().item()
    assert error <= (tasks + 1) * torch.finfo(dtype).eps * size + torch.finfo(dtype).tiny
    reading = ConflictMonitor([problem.x])(problem.losses())
    assert torch.equal(reading.gramian, M)


@given(seed=zoo.seeds, tasks=st.integers(1, 32), exponent=st.integers(-30, 30))
def test_directions_do_not_depend_on_the_scale(seed: int, tasks: int, exponent: int) -> None:
    """Powers of two, to the last bit, for float64 gradients of 1e-30 … 1e30."""
    G = torch.from_numpy(zoo.sample("independent", tasks, seed))
    scale = 2.0 ** round(exponent * 3.3219)
    plain, scaled = came_grad(G), came_grad(G * scale)
    assert torch.equal(scaled.update, plain.update * scale)
    assert torch.equal(scaled.alpha, plain.alpha)
    assert bool(scaled.valid) is bool(plain.valid)


G = torch.tensor([[1.0, 0.0, 1.0], [-0.5, 1.0, 0.0]])
ON_GRADIENTS: dict[str, Callable[[Tensor], object]] = {"gramian": gramian, "came_grad": came_grad}
ON_GRAMIANS: dict[str, Callable[[Tensor], object]] = {
    **AGGREGATORS,
    "came_grad_stages": came_grad_stages,
    "solve_dual": solve_dual,
}
BAD: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "complex": (lambda t: t.to(torch.complex64), "must be real floating point, got torch.complex64"),
    "integer": (lambda t: t.long(), "must be real floating point, got torch.int64"),
    "sparse": (lambda t: t.to_sparse(), r"must be dense, got layout torch\.sparse_coo; use \.to_dense\(\)"),
    "meta": (lambda t: t.to("meta"), "must hold numbers, got a tensor on the meta device"),
    "list": (lambda t: t.tolist(), "must be a tensor, got list"),
    "one dimension": (lambda t: t[0], r"must have shape \(\.\.\., K, [dK]\) with K >= 1, got"),
    "no task": (lambda t: t[:0], r"must have shape \(\.\.\., K, [dK]\) with K >= 1, got \(0,"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", [*ON_GRADIENTS, *ON_GRAMIANS])
def test_functions_say_what_is_wrong(name: str, bad: str) -> None:
    change, message = BAD[bad]
    function, argument = (ON_GRADIENTS[name], G) if name in ON_GRADIENTS else (ON_GRAMIANS[name], G @ G.T)
    function(argument)
    with pytest.raises(ValueError, match=message):
        function(change(argument))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["came_grad", *ON_GRAMIANS])
def test_functions_name_the_task_that_is_not_finite(name: str, value: float) -> None:
    broken = G.clone()
    broken[1, 1] = value
    function, argument = (ON_GRADIENTS[name], broken) if name == "came_grad" else (ON_GRAMIANS[name], broken @ broken.T)
    with pytest.raises(ValueError, match="gradient of task 1 is not finite"):
        function(argument)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0], r"task_weights\[1\] = -1.0 must be finite and >= 0"),
        ([torch.nan, 1.0], r"task_weights\[0\] = nan"),
        ([0.0, 0.0], "all zero"),
        ([1.0], "one entry for each of the 2 tasks"),
        ("ab", "task_weights must be numbers"),
        (["a", "b"], "task_weights must be numbers"),
        (torch.ones(2, dtype=torch.complex64), "dense real numbers, got torch.complex64"),
        (torch.ones(2, device="meta"), "on meta"),
        (torch.ones(2).to_sparse(), "torch.sparse_coo"),
    ],
)
@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_aggregators_say_what_is_wrong_with_the_weights(name: str, weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AGGREGATORS[name](G @ G.T, weights)


def build(x: Tensor) -> CAMEGrad:
    return CAMEGrad(torch.optim.SGD([x], lr=0.1))


def takers(x: Tensor) -> dict[str, Callable[[list[Any]], object]]:
    """Whatever takes losses."""
    return {
        "step": lambda losses: build(x).step(losses),
        "backward": lambda losses: build(x).backward(losses),
        "accumulate": lambda losses: build(x).accumulate(losses),
        "monitor": lambda losses: ConflictMonitor([x])(losses),
    }


@pytest.mark.parametrize("taker", ["step", "backward", "accumulate", "monitor"])
def test_losses_that_cannot_be_minimized_are_named(taker: str) -> None:
    x = nn.Parameter(torch.ones(2))
    take = takers(x)[taker]
    good = (x**2).sum()
    for bad, message in (
        (x.sum() * (1 + 1j), "loss of task 1 is complex; only a dense real number"),
        (x.to("meta").sum(), "loss of task 1 is on the meta device"),
        (x[:1].to_sparse(), "loss of task 1 is sparse"),
        (x, r"loss of task 1 must be a scalar, got shape \(2,\)"),
        (x[:0], r"loss of task 1 must be a scalar, got shape \(0,\)"),
        (x.sum().detach(), "loss of task 1 has no gradient"),
        (1.0, "loss of task 1 must be a tensor, got float"),
    ):
        with pytest.raises(ValueError, match=message):
            take([good, bad])
    with pytest.raises(ValueError, match="non-empty sequence of scalar tensors, one a task, got none"):
        take([])
    take([good, x.sum()])


def test_parameters_that_cannot_be_trained_are_named() -> None:
    meta, complex_ = nn.Parameter(torch.ones(2, device="meta")), nn.Parameter(torch.ones(2, dtype=torch.complex64))
    for parameter, message in (
        (meta, "parameter 0 is on the meta device and has no numbers; materialize the model first"),
        (complex_, "parameter 0 is complex; only real parameters"),
    ):
        loss = nn.Parameter(torch.ones(1)).sum()
        with pytest.raises(ValueError, match=message):
            build(parameter).step([loss])
        with pytest.raises(ValueError, match=message):
            ConflictMonitor([parameter])([loss])


@pytest.mark.parametrize("taker", ["step", "backward", "accumulate", "monitor"])
def test_sparse_gradients_are_named(taker: str) -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    loss = embedding(torch.tensor([1])).sum()
    with pytest.raises(ValueError, match="gradient of task 0 for parameter 0 is sparse; only dense real"):
        takers(embedding.weight)[taker]([loss])
    with pytest.raises(ValueError, match="gradient of task 0 for parameter 0 is sparse"):
        task_gradients([embedding(torch.tensor([1])).sum()], [embedding.weight])


@given(value=st.sampled_from([torch.nan, torch.inf]), tasks=st.integers(1, 8), data=st.data(), dtype=dtypes)
def test_the_task_that_is_not_finite_is_named_and_nothing_changed(
    value: float, tasks: int, data: st.DataObject, dtype: torch.dtype
) -> None:
    bad = data.draw(st.integers(0, tasks - 1))
    problem = Linear(torch.ones(tasks, 3, dtype=dtype))
    optimizer = build(problem.x)
    losses = problem.losses()
    losses[bad] = losses[bad] * value
    with pytest.raises(NonFiniteError, match=f"loss of task {bad} is nan"):
        optimizer.step(losses)
    assert problem.x.tolist() == [0.0] * 3
    assert problem.x.grad is None
