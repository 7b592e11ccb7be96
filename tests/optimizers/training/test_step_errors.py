"""What the training step refuses, and that it then changes nothing."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from optimizers import CAMEGrad, MultiTaskOptimizer

BAD: list[tuple[Callable[[nn.Module, Tensor], object], dict, str]] = [
    (lambda m, x: [], {}, "got none"),
    (lambda m, x: m.losses(x)[0], {}, r"one tensor of shape \(\)"),
    (lambda m, x: [m.losses(x)[0], 1.0], {}, "task 1 must be a tensor, got float"),
    (
        lambda m, x: [m.losses(x)[0], m.trunk(x)],
        {},
        r"task 1 must be a scalar, got shape \(6, 8\)",
    ),
    (lambda m, x: [m.losses(x)[0], m.losses(x)[1].detach()], {}, "task 1 has no gradient"),
    (lambda m, x: m.losses(x), {"task_weights": [1.0, 2.0, 3.0]}, "each of the 2 tasks"),
    (lambda m, x: m.losses(x), {"task_weights": [1.0, -1.0]}, r"task_weights\[1\] = -1.0"),
    (lambda m, x: m.losses(x), {"task_weights": [0.0, 0.0]}, "all zero"),
    (lambda m, x: m.losses(x), {"task_weights": torch.ones(1, 2)}, r"shape \(2,\), got \(1, 2\)"),
]


@pytest.mark.parametrize(("losses", "options", "message"), BAD)
@pytest.mark.parametrize("method", ["step", "backward", "accumulate"])
def test_bad_input_is_named_and_changes_nothing(
    model: nn.Module, x: Tensor, unchanged: Callable, losses: Callable, options: dict, message: str, method: str
) -> None:
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()))
    optimizer.step(model.losses(x))
    with unchanged(model, optimizer), pytest.raises(ValueError, match=message):
        getattr(optimizer, method)(losses(model, x), **options)


def test_the_check_that_nothing_changed_can_fail(model: nn.Module, x: Tensor, unchanged: Callable) -> None:
    """Negative control of the test above: a good step is noticed, and so is a gradient."""
    optimizer = CAMEGrad(torch.optim.AdamW(model.parameters()))
    with pytest.raises(AssertionError), unchanged(model, optimizer):
        optimizer.step(model.losses(x))
    with pytest.raises(AssertionError), unchanged(model, optimizer):
        optimizer.backward(model.losses(x))


def test_constructor_refuses_what_cannot_work(model: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"must be a torch\.optim\.Optimizer, got str"):
        CAMEGrad("adam")
    with pytest.raises(TypeError, match="LBFGS"):
        CAMEGrad(torch.optim.LBFGS(model.parameters()))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="on_nonfinite = 'ignore'"):
        CAMEGrad(sgd, on_nonfinite="ignore")
    with pytest.raises(ValueError, match="rho = 1"):
        CAMEGrad(sgd, rho=1)
    with pytest.raises(TypeError, match=r"aggregator must be a function.*or have a method combine.*got str"):
        MultiTaskOptimizer(sgd, "linear")
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


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_no_loss_can_have_is_refused(model: nn.Module, x: Tensor, scale: float) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=f"scale = {scale} must be finite and > 0"):
        optimizer.backward(model.losses(x), scale=scale)


@pytest.mark.parametrize(
    ("aggregator", "message"),
    [
        (lambda M, w: torch.ones(3), r"2 finite coefficients, one a task, got \[1.0, 1.0, 1.0\]"),
        (lambda M, w: torch.tensor([1.0, torch.nan]), r"got \[1.0, nan\]"),
    ],
)
def test_an_aggregator_that_gives_no_coefficients_is_named(
    model: nn.Module, x: Tensor, unchanged: Callable, aggregator: Callable, message: str
) -> None:
    optimizer = MultiTaskOptimizer(torch.optim.AdamW(model.parameters()), aggregator)
    with unchanged(model, optimizer), pytest.raises(ValueError, match=message):
        optimizer.step(model.losses(x))


def test_losses_that_reach_nothing_are_refused(model: nn.Module, x: Tensor) -> None:
    """As where the model was replaced, or sharded, after the optimizer was built."""
    optimizer = CAMEGrad(torch.optim.SGD(copy.deepcopy(model).parameters(), lr=0.1))
    with pytest.raises(ValueError, match="reach no parameter of the optimizer: was the model replaced, or sharded"):
        optimizer.step(model.losses(x))
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="all of them are frozen"):
        CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1)).step([x.requires_grad_().sum()])
