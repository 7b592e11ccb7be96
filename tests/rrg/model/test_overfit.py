"""The model, the training and the generation together: 64 reports are learned by heart."""

import dataclasses
from pathlib import Path

import pytest

from rrg.config import TrainConfig
from rrg.model import ModelConfig
from rrg.train import train
from rrg.training.setup import load_corpus

CONFIG = TrainConfig(
    dataset="phantom",
    phantom_studies=96,
    steps=300,
    batch_size=16,
    lr=2e-3,
    logit_adjustment=0.0,
    image_size=48,
    vocabulary_size=400,
    max_length=96,
    device="cpu",
    evaluate="train",
    log_every=50,
    checkpoint_every=1000,
    model=ModelConfig((16, 32, 64), (1, 1, 1), decoder_width=96, decoder_layers=2),
)


@pytest.mark.slow
def test_came_grad_learns_64_reports_by_heart(tmp_path: Path) -> None:
    """BLEU-4 > 0.9 on the training reports, which a tenth of the steps does not reach."""
    assert len(load_corpus(CONFIG).split("train")) == 64
    scores = train(dataclasses.replace(CONFIG, out=tmp_path / "whole")).result["evaluation"]
    assert scores["studies"]["train"] == 64
    assert scores["bleu"][3] > 0.9
    assert scores["distinct_reports"] > 60
    assert scores["clinical_efficacy"]["14 conditions, uncertain positive"]["micro"]["f1"] > 0.9
    short = train(dataclasses.replace(CONFIG, out=tmp_path / "short", steps=30)).result["evaluation"]
    assert short["bleu"][3] < 0.5
