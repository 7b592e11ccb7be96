"""Interrupted and killed runs go on bit for bit."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_training import lines, same_weights, stop_before, tiny

from rrg.config import from_json
from rrg.model import TASKS
from rrg.train import train
from rrg.training import checkpoint
from sde_mtl import read_log

EVERYTHING = {
    "tasks": TASKS,
    "accumulate": 2,
    "refresh_every": 2,
    "shared": True,
    "augment": True,
    "frozen_batches": 0,
    "checkpoint_every": 1,
}


KINDS: dict[str, dict[str, object]] = {
    "linear": {"optimizer": "linear"},
    "came-grad": {},
    "torchjd": {"optimizer": "torchjd:UPGrad"},
    "everything": EVERYTHING,
    "fp16": {"precision": "fp16", "frozen_batches": 0},
    "bf16, two loaders": {"precision": "bf16", "workers": 2, "frozen_batches": 0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    changes = KINDS[kind]
    train(tiny(tmp_path / "whole", **changes))
    with monkeypatch.context() as patch:
        stop_before(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(tmp_path / "parts", **changes))
    train(tiny(tmp_path / "parts", **changes, resume=True))
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    whole, parts = read_log(tmp_path / "whole/gradients"), read_log(tmp_path / "parts/gradients")
    assert np.array_equal(whole.gramian, parts.gramian)
    assert np.array_equal(whole.projected, parts.projected)
    assert len(whole.frozen) == len(parts.frozen) == (0 if changes.get("frozen_batches") == 0 else 1)
    assert all(np.array_equal(a.gramian, b.gramian) for a, b in zip(whole.frozen, parts.frozen, strict=True))
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "parts/metrics.jsonl").read_text()


def test_a_run_stopped_before_its_first_checkpoint_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_before(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(tmp_path / "parts"))
    assert not checkpoint.steps(tmp_path / "parts/checkpoints")
    train(tiny(tmp_path / "parts", resume=True))
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert read_log(tmp_path / "parts/gradients").steps.tolist() == list(range(6))


COMMAND = ["--dataset", "phantom", "--phantom-studies", "60", "--batch-size", "4", "--image-size", "32"]
COMMAND += ["--vocabulary-size", "300", "--max-length", "32", "--log-gradients", "--frozen-batches", "0"]
COMMAND += [
    "--projection-dim",
    "64",
    "--device",
    "cpu",
    "--evaluate",
    "none",
    "--log-every",
    "1",
    "--tasks",
    "rg,dc,re",
]
COMMAND += ["--model.encoder-widths", "8", "16", "--model.encoder-depths", "1", "1", "--model.text-layers", "1"]
COMMAND += ["--model.decoder-width", "16", "--model.decoder-layers", "1", "--model.dropout", "0.1"]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rrg.train", *COMMAND, "--out", str(out), *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    try:
        deadline = time.monotonic() + 120
        while not ready():
            assert time.monotonic() < deadline, "nothing appeared"
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        with process:
            process.wait()


def test_a_killed_process_leaves_a_readable_log_and_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(out, "--steps", "100000", "--checkpoint-every", "5")
    kill_when(process, lambda: len(list((out / "gradients").glob("steps-*.safetensors"))) >= 3)
    log = read_log(out / "gradients")
    assert log.steps.tolist() == list(range(len(log.steps)))
    assert int(checkpoint.latest(out / "checkpoints").name.split("-")[1]) >= 5
    assert from_json(json.loads((out / "config.json").read_text())).steps == 100_000


@pytest.mark.slow
def test_kill_9_at_any_moment_and_resume_is_the_uninterrupted_run(tmp_path: Path) -> None:
    """Killed five times, at moments spread over the interval between two checkpoints; bit for bit the same."""
    steps = ("--steps", "60", "--checkpoint-every", "4")
    whole = start(tmp_path / "whole", *steps)
    shown = whole.communicate(timeout=300)[0]
    assert whole.returncode == 0, shown
    out = tmp_path / "parts"
    for kill in range(5):
        process = start(out, *steps, *(["--resume"] if kill else []))
        reached = len(lines(out)) + 5 + kill
        kill_when(process, lambda reached=reached: len(lines(out)) >= reached)
    last = start(out, *steps, "--resume")
    shown = last.communicate(timeout=300)[0]
    assert last.returncode == 0, shown
    assert same_weights(tmp_path / "whole", out)
    assert lines(tmp_path / "whole") == lines(out)
    assert np.array_equal(read_log(tmp_path / "whole/gradients").gramian, read_log(out / "gradients").gramian)
