"""Monitors and features under DistributedDataParallel, on two gloo processes."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent
TOLERANCE = 1e-12
"""Relative, in float64."""


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("watched_processes", HERE / "watched_processes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "error", str(HERE / "watched_processes.py")]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    processes = [
        subprocess.Popen([*command, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=90)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(error[-1500:] for error in errors)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


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
