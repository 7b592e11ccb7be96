import dataclasses
import json
from pathlib import Path

import pytest

from rrg import compare as comparing
from rrg.compare import CompareConfig, compare, variant
from rrg.config import TrainConfig
from rrg.errors import TrainingError
from rrg.metrics.seeds import markdown, measured, summarize
from rrg.model import ModelConfig

TINY = TrainConfig(
    dataset="phantom",
    phantom_studies=60,
    steps=3,
    batch_size=4,
    image_size=32,
    vocabulary_size=300,
    max_length=16,
    log_every=1,
    device="cpu",
    model=ModelConfig((8, 16), (1, 1), decoder_width=16, decoder_layers=1),
)


def test_options_of_a_variant_are_read() -> None:
    base = TrainConfig(task_weights=(1.0, 4.0))
    assert variant(base, "linear:task_weights=equal").weights == (1.0, 1.0)
    assert variant(base, "linear:task_weights=2,3").weights == (2.0, 3.0)
    assert variant(base, "linear:clip_value=0.1").clip_value == 0.1
    assert variant(base, "torchjd:UPGrad:refresh_every=4") == dataclasses.replace(
        base, optimizer="torchjd:UPGrad", refresh_every=4
    )
    cagrad = variant(base, "torchjd:CAGrad:c=0.4:lr=0.1")
    assert (cagrad.optimizer, cagrad.lr) == ("torchjd:CAGrad:c=0.4", 0.1)
    for text, message in (
        ("torchjd:CAGrad", "requires the option 'c'.*write torchjd:CAGrad:option=value"),
        ("torchjd:CAGrad:c=big", "'c=big' must be option=number"),
        ("torchjd:UPGrad:c=1", "UPGrad has no option 'c'"),
        ("came-grad:kapa=2", "unknown option 'kapa'; there are rho, kappa"),
        ("came-grad:kappa=big", "kappa cannot be 'big'"),
        ("came-grad:kappa=0.5", "kappa = 0.5"),
        ("came-grad:center=middle", "center"),
        ("adam", "optimizer 'adam' must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            variant(base, text)
    for changes in ({"optimizers": ()}, {"seeds": (1, 1)}):
        with pytest.raises(ValueError, match="one or more, each once"):
            CompareConfig(**changes)


def test_the_control_is_always_there_and_runs_are_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CompareConfig(("linear", "came-grad:nu=0.6"), (0, 1), tmp_path / "out", TINY)
    summary = compare(config)
    assert summary["control"] == "linear:task_weights=equal"
    assert [row["optimizer"] for row in summary["optimizers"]] == [summary["control"], *config.optimizers]
    assert all(len(row["runs"]) == 2 and not row["failed"] for row in summary["optimizers"])
    losses = [row["mean"]["loss rg"] for row in summary["optimizers"]]
    assert len(set(losses)) == 3, "methods and weights must differ"
    assert summary["optimizers"][1]["standard_deviation"]["loss rg"] > 0
    assert set(summary["optimizers"][2]["difference_from_control"]) >= {"loss rg", "loss dc", "BLEU-4"}
    assert json.loads((tmp_path / "out/compare.json").read_text()) == json.loads(json.dumps(summary))
    table = (tmp_path / "out/compare.md").read_text()
    assert table.count("\n| ") == 4
    assert "linear:task_weights=equal (control)" in table
    monkeypatch.setattr("rrg.train.train", lambda *a, **k: pytest.fail("trained again"))
    assert compare(config) == summary


def test_an_optimizer_that_is_the_control_is_not_run_twice(tmp_path: Path) -> None:
    equal = dataclasses.replace(TINY, task_weights=(1.0, 1.0), evaluate="none")
    summary = compare(CompareConfig(("linear",), (0,), tmp_path, equal))
    assert summary["control"] == "linear"
    assert len(summary["optimizers"]) == 1


def test_a_failed_run_is_counted_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = comparing.trained

    def failing(options: TrainConfig, console: object) -> object:
        if options.optimizer == "mgda" and options.seed == 1:
            raise TrainingError("step 2: loss of task 0 is nan")
        return real(options, console)  # type: ignore[arg-type]

    monkeypatch.setattr(comparing, "trained", failing)
    base = dataclasses.replace(TINY, evaluate="none")
    summary = compare(CompareConfig(("mgda",), (0, 1), tmp_path, base))
    mgda = summary["optimizers"][1]
    assert list(mgda["runs"]) == ["0"]
    assert mgda["failed"] == {"1": "step 2: loss of task 0 is nan"}
    assert "| mgda | 1, 1 failed |" in markdown(summary)


def test_what_could_not_be_measured_is_no_number() -> None:
    rows = {
        "linear": {0: {"METEOR": "unavailable: no Java", "x": 1.0}, 1: {"METEOR": "unavailable: no Java", "x": 3.0}}
    }
    summary = summarize(rows, "linear")
    assert summary["unavailable"] == {"METEOR": "unavailable: no Java"}
    assert summary["optimizers"][0]["mean"] == {"x": 2.0}
    assert summary["optimizers"][0]["standard_deviation"]["x"] == pytest.approx(2**0.5)
    assert "METEOR: unavailable" in markdown({"note": "n", **summary})
    assert measured({"training_losses": {}}) == {}
