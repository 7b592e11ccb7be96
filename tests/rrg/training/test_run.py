"""Runs that cannot go on end with a message and a usable checkpoint."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_training import lines, same_weights, tiny

import optimizers.files
import rrg.training.run
from rrg.errors import TrainingError
from rrg.train import train
from sde_mtl import read_log


def test_nan_stops_with_a_usable_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = rrg.training.run.task_losses
    calls = []

    def poisoned(*arguments: object, **more: object) -> list[torch.Tensor]:
        calls.append(1)
        found = losses(*arguments, **more)  # type: ignore[arg-type]
        return [found[0], found[1] * float("nan")] if len(calls) == 5 else found

    monkeypatch.setattr(rrg.training.run, "task_losses", poisoned)
    with pytest.raises(TrainingError, match=r"step 4: loss of task 1 is nan.*the last checkpoint is .*step-000003"):
        train(tiny(tmp_path / "run", frozen_batches=0))
    assert read_log(tmp_path / "run/gradients").steps.tolist() == [0, 1, 2, 3]
    monkeypatch.setattr(rrg.training.run, "task_losses", losses)
    train(tiny(tmp_path / "run", frozen_batches=0, resume=True))
    assert read_log(tmp_path / "run/gradients").steps.tolist() == list(range(6))


def test_fp16_skips_an_overflow_and_stops_where_no_scale_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = rrg.training.run.task_losses
    calls: list[int] = []

    class Overflow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, slope: torch.Tensor) -> torch.Tensor:
            return slope * float("inf")

    def overflowing(last: int) -> Callable[..., list[torch.Tensor]]:
        def losses(*arguments: object, **more: object) -> list[torch.Tensor]:
            calls.append(1)
            found = forward(*arguments, **more)  # type: ignore[arg-type]
            return [Overflow.apply(x) for x in found] if len(calls) <= last else found

        return losses

    monkeypatch.setattr(rrg.training.run, "task_losses", overflowing(2))
    train(tiny(tmp_path / "run", precision="fp16", frozen_batches=0))
    scales = [json.loads(line)["scale"] for line in lines(tmp_path / "run")]
    assert scales == [2.0**15, *[2.0**14] * 5]
    calls.clear()
    monkeypatch.setattr(rrg.training.run, "task_losses", overflowing(1000))
    with pytest.raises(TrainingError, match=r"gradients overflow fp16 at every scale down to .* try bf16"):
        train(tiny(tmp_path / "hopeless", precision="fp16", frozen_batches=0, steps=60))


def test_a_full_disk_ends_with_a_message_and_a_usable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny(tmp_path / "whole"))
    real = optimizers.files.os.fsync
    written: list[int] = []

    def full(descriptor: int) -> None:
        written.append(1)
        if len(written) > before_second_checkpoint:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    before_second_checkpoint = 10**6
    with monkeypatch.context() as patch:
        patch.setattr(optimizers.files.os, "fsync", full)
        train(tiny(tmp_path / "count", steps=3, frozen_at=(0.0,)))
    before_second_checkpoint = len(written) - 1
    written.clear()
    with monkeypatch.context() as patch:
        patch.setattr(optimizers.files.os, "fsync", full)
        with pytest.raises(TrainingError, match=r"cannot write to .*No space left.*step-000003.*--resume"):
            train(tiny(tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step-000003"]
    assert not list((tmp_path / "run").rglob("*.tmp"))
    train(tiny(tmp_path / "run", resume=True))
    assert same_weights(tmp_path / "whole", tmp_path / "run")
