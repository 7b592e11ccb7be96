"""A training run of a few steps, and what tests ask of its folder."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rrg.config import TrainConfig
from rrg.model import ModelConfig
from rrg.training import checkpoint
from rrg.training.run import TrainingRun

TINY = TrainConfig(
    dataset="phantom",
    phantom_studies=60,
    steps=6,
    batch_size=4,
    image_size=32,
    vocabulary_size=300,
    max_length=32,
    log_gradients=True,
    frozen_at=(0.5,),
    frozen_batches=4,
    projection_dim=64,
    log_every=1,
    checkpoint_every=3,
    device="cpu",
    evaluate="none",
    model=ModelConfig((8, 16), (1, 1), decoder_width=16, decoder_layers=1, dropout=0.1),
)


def tiny(out: Path, **changes: object) -> TrainConfig:
    return dataclasses.replace(TINY, out=out, **changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.latest(run / "checkpoints") / "model.safetensors")


def same_weights(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def lines(run: Path) -> list[str]:
    path = run / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def stop_before(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    step = TrainingRun.step

    def interrupted(run: TrainingRun, number: int) -> list[float]:
        if number == at:
            raise KeyboardInterrupt
        return step(run, number)

    monkeypatch.setattr(TrainingRun, "step", interrupted)
