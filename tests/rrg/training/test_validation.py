"""Losses of the validation split: of whole studies, in evaluation mode, by one process."""

import pytest
import torch
from tiny_training import tiny

from rrg.data import ReportDataset, Tokenizer
from rrg.distributed import alone, rank, world_size
from rrg.training import build_model, load_corpus, validation_losses
from rrg.training import validation as module


def test_batches_do_not_change_the_losses_of_single_studies(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path, tasks=("rg", "dc"), phantom_studies=80)  # type: ignore[arg-type]
    corpus = load_corpus(config)
    tokenizer = Tokenizer.learn([s.report for s in corpus.split("train")], 300)
    studies = corpus.split("train")[:9]
    dataset = ReportDataset(studies, tokenizer, image_size=32, max_length=32)
    model = build_model(config, tokenizer, studies).train()
    state = torch.get_rng_state()
    whole = validation_losses(model, dataset, ("rg", "dc"), device=torch.device("cpu"))
    assert model.training, "left in its mode"
    assert torch.equal(state, torch.get_rng_state()), "draws no random numbers"
    monkeypatch.setattr(module, "BATCH", 4)  # 4, 5: the last study joins the batch before
    parts = validation_losses(model, dataset, ("rg", "dc"), device=torch.device("cpu"))
    assert parts == pytest.approx(whole, rel=1e-5)


def test_bounds_leave_no_study_alone() -> None:
    for studies, expected in (
        (1, [(0, 1)]),
        (64, [(0, 64)]),
        (65, [(0, 65)]),
        (129, [(0, 64), (64, 129)]),
        (130, [(0, 64), (64, 128), (128, 130)]),
    ):
        assert module._bounds(studies) == expected


def test_alone_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    assert (rank(), world_size()) == (1, 2)
    with alone():
        assert (rank(), world_size()) == (0, 1)
    assert (rank(), world_size()) == (1, 2)
