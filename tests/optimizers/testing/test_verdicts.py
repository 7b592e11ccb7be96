"""The suite's verdicts on aggregators whose properties are known, and on broken ones."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers import cagrad, came_grad_coefficients, linear, mgda, pcgrad
from optimizers.testing import PROPERTIES, Verdict, conformance, subject, table
from optimizers.testing.checks import Case
from optimizers.testing.verdict import judge, known, unmet

BASIC = {
    "finite", "expected_shape", "keeps_dtype_and_device", "input_unmodified", "deterministic", "batch_equals_loop",
    "permutation_invariant", "positively_homogeneous", "scale_invariant_direction", "rotation_equivariant",
    "weakly_non_conflicting", "no_loss_without_conflict",
}  # fmt: skip
CENTRED = {"linear_under_scaling", "non_conflicting", "vanishes_at_strong_stationarity"}
"""What a ball around the mean gradient gives up: its ρ < 1 keeps the update from zero, and from where tasks agree."""
FAILS: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "linear": (linear, {"non_conflicting", "vanishes_at_strong_stationarity"}),
    "MGDA": (mgda, {"linear_under_scaling", "strongly_stationary"}),
    "PCGrad": (pcgrad, {
        "permutation_invariant", "non_conflicting", "vanishes_at_strong_stationarity", "descends_mean",
        "descends_weighted_sum",
    }),
    "CAGrad": (cagrad, CENTRED),
    "CAME-Grad": (came_grad_coefficients, CENTRED | {"descends_weighted_sum"}),
    "CAME-Grad, weighted": (partial(came_grad_coefficients, center="weighted"), CENTRED),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILS)
def test_known_aggregators_get_the_verdicts_that_theory_gives_them(name: str) -> None:
    """The mean centre may raise the weighted loss (T6), the weighted one never does (T7)."""
    aggregator, expected = FAILS[name]
    verdicts = conformance(aggregator)
    assert {v.property for v in verdicts if v.outcome == "fails"} == expected
    assert all(v.outcome == "holds" for v in verdicts if v.property not in expected)
    assert not BASIC & (expected - {"permutation_invariant"})


@pytest.mark.parametrize(
    ("aggregator", "name", "outcome"),
    [
        (linear, "linear_under_scaling", "holds"), (linear, "non_conflicting", "fails"),
        (mgda, "non_conflicting", "holds"), (mgda, "strongly_stationary", "fails"),
        (came_grad_coefficients, "descends_weighted_sum", "fails"), (came_grad_coefficients, "descends_mean", "holds"),
        (partial(came_grad_coefficients, center="weighted"), "descends_weighted_sum", "holds"),
        (partial(came_grad_coefficients, nu=1.0, kappa=1.0), "linear_under_scaling", "holds"),
    ],
)  # fmt: skip
def test_some_of_them_quickly(aggregator: Any, name: str, outcome: str) -> None:
    (verdict,) = conformance(aggregator, [name])
    assert verdict.outcome == outcome
    assert (verdict.case is None) == (outcome == "holds")


def test_pcgrad_of_two_tasks_has_what_pcgrad_of_three_lacks() -> None:
    names = ["permutation_invariant", "non_conflicting", "vanishes_at_strong_stationarity", "descends_mean"]
    assert all(v.outcome == "holds" for v in conformance(pcgrad, names, tasks=(2, 2), examples=60))
    assert all(v.outcome == "fails" for v in conformance(pcgrad, names, tasks=(3, 4), examples=200))


def test_every_check_has_a_negative_control(broken: dict[str, Callable]) -> None:
    assert list(broken) == list(PROPERTIES)


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_check_can_fail(name: str, broken: dict[str, Callable]) -> None:
    (verdict,) = conformance(broken[name], [name], examples=150)
    assert verdict.outcome == "fails"
    assert verdict.case is not None
    assert verdict.reason.startswith("G = [")


@pytest.mark.parametrize("name", ["finite", "linear_under_scaling", "descends_mean"])
def test_an_exception_is_a_finding(name: str) -> None:
    def raising(matrix: Tensor) -> Tensor:
        raise RuntimeError("no\nway")

    (verdict,) = conformance(raising, [name], examples=20)
    assert verdict.outcome == "fails"
    assert "raises RuntimeError: no way" in verdict.reason
    assert verdict.violation == float("inf")


def test_counterexamples_are_small() -> None:
    (verdict,) = conformance(linear, ["non_conflicting"])
    assert isinstance(verdict.case, Case)
    assert verdict.case.G.shape == (2, 1)
    assert verdict.case.G.abs().max() <= 2


def test_verdicts_are_the_same_every_time_and_leave_the_random_stream_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    names = ["non_conflicting", "linear_under_scaling", "strongly_stationary"]
    first = [(v.outcome, v.reason, v.violation) for v in conformance(mgda, names, examples=20)]
    torch.manual_seed(1)
    assert first == [(v.outcome, v.reason, v.violation) for v in conformance(mgda, names, examples=20)]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_tolerance_decides_what_is_rounding() -> None:
    def nearly(matrix: Tensor) -> Tensor:
        return matrix.sum(0) + 1e-4 * matrix[0]

    judged = partial(judge, PROPERTIES["permutation_invariant"], subject(nearly), examples=50)
    assert judged(tolerance=1e-6).outcome == "fails"
    assert judged(tolerance=1e-6).violation > 0
    assert judged(tolerance=0.2).outcome == "holds"


def test_what_is_not_applicable() -> None:
    verdicts = conformance(lambda matrix: matrix.sum(0), ["batch_equals_loop", "descends_weighted_sum"])
    assert [(v.outcome, v.reason) for v in verdicts] == [
        ("not applicable", "takes one matrix at a time"), ("not applicable", "takes no task weights"),
    ]  # fmt: skip
    assert unmet(verdicts, ["batch_equals_loop"]) == ["batch_equals_loop"]

    def one_problem(gramian: Tensor, task_weights: Tensor) -> Tensor:
        if gramian.dim() > 2:
            raise ValueError
        return task_weights

    (verdict,) = conformance(one_problem, ["batch_equals_loop"])
    assert verdict.reason == "refuses batches"


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="'convex' is no property; known: finite, "):
        conformance(linear, ["convex"])
    with pytest.raises(ValueError, match=r"tasks = \(3, 2\)"):
        conformance(linear, tasks=(3, 2))
    with pytest.raises(ValueError, match="examples = 0"):
        conformance(linear, examples=0)
    with pytest.raises(ValueError, match="tolerance = -1"):
        conformance(linear, tolerance=-1)
    assert known(["all"]) == list(PROPERTIES)


def test_long_reasons_are_cut() -> None:
    assert len(table([Verdict("finite", "fails", "x" * 500)], width=80).splitlines()[1]) <= 80
