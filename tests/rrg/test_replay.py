"""A run writes what its aggregator decided, and another run replays it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import lines, same_weights, stop_before, tiny

from optimizers import WeightSchedule
from rrg.aggregators import Replay
from rrg.config import TrainConfig
from rrg.train import train, trained


@pytest.fixture(scope="module")
def came(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with CAME-Grad."""
    out = tmp_path_factory.mktemp("came") / "run"
    train(without_log(out, optimizer="came-grad"))
    return out


def without_log(out: Path, **changes: object) -> TrainConfig:
    return dataclasses.replace(tiny(out, **changes), log_gradients=False)


def result(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "result.json").read_text()))


def test_a_run_writes_its_coefficients(came: Path) -> None:
    schedule = WeightSchedule.read(came / "coefficients.csv")
    assert schedule.tasks == ("rg", "dc")
    assert schedule.weights.shape == (6, 2)
    assert (schedule.weights > 0).all()
    mean = result(came)["mean_coefficients"]
    assert list(mean.values()) == pytest.approx(schedule.mean()(0).tolist())


def test_an_exact_replay_takes_the_same_steps(came: Path, tmp_path: Path) -> None:
    """Same seed, no smoothing: the weighted sum at the recorded weights is the run itself, up to rounding."""
    train(without_log(tmp_path / "replay", optimizer=f"replay:{came}:smooth=1"))
    both = [[json.loads(line) for line in lines(run)] for run in (came, tmp_path / "replay")]
    for first, second in zip(*both, strict=True):
        assert first["rg"] == pytest.approx(second["rg"], rel=1e-4)
        assert "pair_conflict_share" in first
        assert "pair_conflict_share" not in second, "one backward pass sees no conflict"
    assert not same_weights(came, tmp_path / "replay")


def test_linear_at_its_weights_is_a_replay_of_itself(tmp_path: Path) -> None:
    """Two routes to one run: K backward passes combined, and one of the combined loss."""
    train(without_log(tmp_path / "linear", optimizer="linear"))
    assert WeightSchedule.read(tmp_path / "linear/coefficients.csv").weights.tolist() == [[1.0, 4.0]] * 6
    train(without_log(tmp_path / "replay", optimizer=f"replay:{tmp_path / 'linear'}:mean=True"))
    losses = [result(tmp_path / name)["validation_losses"] for name in ("linear", "replay")]
    for task in ("rg", "dc"):
        assert losses[0][task] == pytest.approx(losses[1][task], rel=1e-4)


def test_step_counts_may_differ_and_several_runs_are_averaged(came: Path, tmp_path: Path) -> None:
    train(without_log(tmp_path / "other", optimizer="came-grad", seed=1, steps=3))
    train(without_log(tmp_path / "replay", optimizer=f"replay:{came},{tmp_path / 'other'}:smooth=1", steps=12))
    used = WeightSchedule.read(tmp_path / "replay/coefficients.csv")
    assert torch.equal(used.weights, WeightSchedule.read(tmp_path / "replay/schedule.csv").weights)
    sources = [WeightSchedule.read(run / "coefficients.csv") for run in (came, tmp_path / "other")]
    assert torch.allclose(used.weights, WeightSchedule.average(sources).stretched(12).weights)


def test_a_killed_replay_goes_on_without_its_source(
    came: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "source.csv"
    copy.write_bytes((came / "coefficients.csv").read_bytes())
    whole = without_log(tmp_path / "whole", optimizer=f"replay:{copy}")
    train(whole)
    cut = dataclasses.replace(whole, out=tmp_path / "cut")
    with monkeypatch.context() as patched:
        stop_before(patched, 4)
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    copy.unlink()
    trained(cut)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    for name in ("coefficients.csv", "schedule.csv"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "cut" / name).read_text()


def test_coefficients_of_a_killed_run_are_continued(
    came: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = without_log(tmp_path / "cut", optimizer="came-grad")
    with monkeypatch.context() as patched:
        stop_before(patched, 5)
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    with (tmp_path / "cut/coefficients.csv").open("a") as file:
        file.write("5,1.0")  # cut short
    trained(cut)
    assert (tmp_path / "cut/coefficients.csv").read_text() == (came / "coefficients.csv").read_text()


def test_an_aggregator_without_coefficients_writes_none(tmp_path: Path) -> None:
    pytest.importorskip("torchjd")
    train(without_log(tmp_path / "run", optimizer="torchjd:GradDrop"))
    assert not (tmp_path / "run/coefficients.csv").exists()
    assert "mean_coefficients" not in result(tmp_path / "run")


def test_what_cannot_be_replayed_is_named(came: Path, tmp_path: Path) -> None:
    for text, message in (
        ("replay:", "must be replay:RUN"),
        ("replay:a:center=mean", "no options but"),
        ("replay:a:smooth=0", "smooth must be"),
        ("replay:a:smooth=1.5", "smooth must be"),
        ("replay:a:mean=2", "mean True or False"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainConfig(optimizer=text)
    with pytest.raises(ValueError, match=r"coefficients.csv is missing|missing: replay"):
        train(without_log(tmp_path / "a", optimizer=f"replay:{tmp_path / 'nowhere'}"))
    with pytest.raises(ValueError, match="holds the weights of rg, dc, not of rg"):
        train(without_log(tmp_path / "b", optimizer=f"replay:{came}", tasks=("rg",)))
    assert not (tmp_path / "a/config.json").exists()
    assert Replay.parse("replay:a,b:smooth=3").sources == (Path("a"), Path("b"))
