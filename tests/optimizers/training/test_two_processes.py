"""Two gloo processes with half of each batch take the steps of one process with the whole."""

from typing import Any

import pytest
import torch
import two_ranks
from torch import Tensor

TOLERANCE = 1e-13
"""Relative, in float64: the mean of eight samples against that of two means of four, a few ε a step, over ≤ 6 steps."""
SINGLE = 1e-6
"""The same where a part of the model is float32."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return two_ranks.run("training/two_processes", tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """What one process ends with on the joint batch."""
    module = two_ranks.as_module("training/two_processes")
    setting = module.Setting(0, 1)
    return {"equal": dict(module.equalities(setting)), "diagnosed": module.diagnosed(setting)}


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_parameters_equal_those_of_one_process_on_the_joint_batch(
    ranks: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    """CAME-Grad, linear and a Jacobian aggregator, with and without find_unused_parameters, no_sync and accumulate, a
    parameter that one process, one task, or nobody reaches, reused coefficients, and a plain backward in between."""
    expected = whole["equal"]
    assert expected.keys() == ranks[0]["equal"].keys()
    assert len(expected) >= 17, list(expected)
    for name, parameters in expected.items():
        limit = SINGLE if "precision" in name else TOLERANCE
        assert distance(ranks[0]["equal"][name], parameters) <= limit, name


def test_processes_agree_to_the_last_bit(ranks: list[dict[str, Any]]) -> None:
    for name, parameters in ranks[0]["equal"].items():
        assert torch.equal(parameters, ranks[1]["equal"][name]), name


def test_methods_differ_and_the_comparison_can_fail(whole: dict[str, Any]) -> None:
    names = [name for name in whole["equal"] if name.endswith("find_unused_parameters=True")]
    ends = [whole["equal"][name] for name in names]
    assert all(distance(a, b) > 1e-3 for i, a in enumerate(ends) for b in ends[:i])


def test_losses_and_gramian_are_those_of_the_joint_batch(ranks: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    for rank in ranks:
        for name, value in whole["diagnosed"].items():
            assert torch.allclose(rank["diagnosed"][name], value, rtol=TOLERANCE, atol=0), name


@pytest.mark.parametrize("kind", ["loss", "gradient"])
@pytest.mark.parametrize("policy", ["raise", "skip", "propagate"])
def test_nan_on_one_process_is_met_by_both_alike(ranks: list[dict[str, Any]], kind: str, policy: str) -> None:
    first, second = (rank["nonfinite"][f"{kind}, {policy}"] for rank in ranks)
    assert torch.equal(first["parameters"], second["parameters"])
    assert torch.equal(first["parameters"], ranks[0]["left out"])
    assert first["message"] == second["message"]
    assert first["skipped"] == second["skipped"] == (policy == "skip")
    if policy == "raise":
        assert f"{kind} of task 1 is" in first["message"]
    if policy == "propagate":
        assert first["message"] == "{True}", "every gradient is NaN"


def test_the_mean_of_the_gramians_is_another_method(ranks: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    """Negative control: the mean of J_rJ_rᵀ is not J̄J̄ᵀ, and its coefficients lead elsewhere."""
    reference = whole["equal"]["came-grad, find_unused_parameters=True"]
    assert distance(ranks[0]["controls"]["mean Gramian"], reference) > 1e-2


def test_a_group_of_one_process_averages_nothing(ranks: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    """Negative control of the averaging, and of agreement between processes."""
    first, second = (rank["controls"]["not averaged"] for rank in ranks)
    assert distance(first, second) > 1e-2
    assert distance(first, whole["equal"]["came-grad, find_unused_parameters=True"]) > 1e-2


@pytest.mark.parametrize("name", ["drawn at random", "combined at random"])
def test_processes_do_not_drift_apart_where_an_aggregator_draws(ranks: list[dict[str, Any]], name: str) -> None:
    """Each process draws from its own generator; the first one's draw counts."""
    assert torch.equal(ranks[0]["controls"][name], ranks[1]["controls"][name])


def test_a_group_without_this_process_is_refused(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert "this process is not in process_group" in rank["controls"]["foreign group"]
