"""Monitors and features under DistributedDataParallel, on two gloo processes."""

from types import ModuleType
from typing import Any

import pytest
import torch
import two_ranks
from torch import Tensor

TOLERANCE = 1e-12
"""Relative, in float64."""


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    return two_ranks.as_module("watched_processes")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return two_ranks.run("watched_processes", tmp_path_factory.mktemp("ranks"))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_data_parallel_training_beside_a_monitor_is_the_same_to_the_last_bit(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert torch.equal(rank["watched"]["parameters"], rank["alone"]["parameters"])
    assert torch.equal(*(rank["watched"]["parameters"] for rank in ranks))


def test_the_joint_reading_is_that_of_the_whole_batch(ranks: list[dict[str, Any]], worker: ModuleType) -> None:
    whole = worker.watched(0, 1, watch=True, dropout=0.0)
    for rank in ranks:
        assert distance(rank["still"]["joint"], whole["joint"]) <= TOLERANCE
        assert distance(rank["still"]["losses"], whole["losses"]) <= TOLERANCE
        assert distance(rank["still"]["own"], whole["own"]) > 1e-3, "negative control"


def test_features_of_the_processes_are_one_representation(ranks: list[dict[str, Any]], worker: ModuleType) -> None:
    whole = worker.features(0, 1)
    for rank in ranks:
        assert distance(rank["features"]["gramian"], whole["gramian"]) <= TOLERANCE
        assert distance(rank["features"]["parameters"], whole["parameters"]) <= TOLERANCE
    assert torch.equal(*(rank["features"]["parameters"] for rank in ranks))
