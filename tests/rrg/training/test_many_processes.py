"""Training on two gloo processes against one process on the joint batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [
    "-m",
    "rrg.train",
    "--dataset",
    "phantom",
    "--phantom-studies",
    "80",
    "--image-size",
    "32",
    "--device",
    "cpu",
]
COMMAND += ["--vocabulary-size", "300", "--max-length", "32", "--log-every", "1", "--evaluate", "none", "--steps", "5"]
COMMAND += ["--model.encoder-widths", "8", "16", "--model.encoder-depths", "1", "1", "--model.text-layers", "1"]
COMMAND += ["--model.decoder-width", "16", "--model.decoder-layers", "1", "--tasks", "rg,dc,ita,re", "--lr", "1e-3"]


def train(out: Path, processes: int, *options: str) -> list[dict[str, float]]:
    """The records of a run under torchrun, or of one plain process."""
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*launch, *COMMAND, "--out", str(out), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def furthest(first: list[dict[str, float]], second: list[dict[str, float]]) -> float:
    """Largest relative difference between the losses of two runs."""
    assert len(first) == len(second) == 5
    return max(
        abs(a[task] - b[task]) / abs(b[task])
        for a, b in zip(first, second, strict=True)
        for task in ("rg", "dc", "ita", "re")
    )


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_on_the_joint_batch(tmp_path: Path) -> None:
    """Losses over 5 steps of AdamW agree to 1e-4, float32 rounding; other weights differ by more than that."""
    one = train(tmp_path / "one", 1, "--batch-size", "8")
    for number, options in enumerate(
        ([], ["--find-unused-parameters"], ["--shared"]),
    ):
        reference = one if "--shared" not in options else train(tmp_path / "shared", 1, "--batch-size", "8", "--shared")
        two = train(tmp_path / f"two-{number}", 2, "--batch-size", "4", *options)
        assert furthest(two, reference) < 1e-4, options
    other = train(tmp_path / "other", 1, "--batch-size", "8", "--task-weights", "equal")
    assert furthest(other, one) > 1e-3


@pytest.mark.slow
def test_accumulation_without_synchronisation_is_that_with_it(tmp_path: Path) -> None:
    """Bit for bit; and a run of two processes resumes, but not with another number of them."""
    options = ["--batch-size", "2", "--accumulate", "2", "--checkpoint-every", "3"]
    plain = train(tmp_path / "sync", 2, *options, "--no-no-sync")
    assert train(tmp_path / "no-sync", 2, *options, "--no-sync") == plain
    done = subprocess.run(
        [sys.executable, *COMMAND, "--out", str(tmp_path / "sync"), *options, "--resume"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "written by 2 processes, resume it with as many, not 1" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_a_gradient_log_of_two_processes_is_written_once(tmp_path: Path) -> None:
    from sde_mtl import read_log

    train(tmp_path / "run", 2, "--batch-size", "4", "--log-gradients", "--frozen-batches", "0")
    assert read_log(tmp_path / "run/gradients").steps.tolist() == list(range(5))
