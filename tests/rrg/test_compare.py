import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from optimizers import WeightSchedule
from rrg import compare as comparing
from rrg.compare import CLIPPED_AS_PUBLISHED, CONTROL, CompareConfig, arms, compare, variant
from rrg.config import TrainConfig
from rrg.errors import TrainingError
from rrg.metrics.seeds import markdown, measured, paired, summarize
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


def test_the_controls_are_there_and_runs_are_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CompareConfig(("came-grad",), (0, 1), tmp_path / "out", TINY)
    summary = compare(config)
    assert summary["control"] == "linear:task_weights=equal"
    names = [row["optimizer"] for row in summary["optimizers"]]
    assert names == [arm.name for arm in arms(config)]
    assert {"linear", "replay(came-grad)", "replay-mean(came-grad)", *CLIPPED_AS_PUBLISHED} < set(names)
    assert all(len(row["runs"]) == 2 and not row["failed"] for row in summary["optimizers"])
    losses = [row["mean"]["validation loss rg"] for row in summary["optimizers"]]
    assert len(set(losses)) == len(names), "methods and weights must differ"
    assert summary["optimizers"][1]["standard_deviation"]["training loss rg"] > 0
    assert set(summary["optimizers"][2]["difference_from_control"]) >= {"validation loss rg", "BLEU-4"}
    assert len(summary["comparisons"]) % (len(names) * (len(names) - 1) // 2) == 0
    assert json.loads((tmp_path / "out/compare.json").read_text()) == json.loads(json.dumps(summary))
    table = (tmp_path / "out/compare.md").read_text()
    assert "linear:task_weights=equal (control)" in table
    assert f"of {len(summary['comparisons'])} comparisons" in table
    for seed, other in ((0, 1), (1, 0)):
        replayed = WeightSchedule.read(tmp_path / f"out/replay_came-grad_/seed-{seed}/coefficients.csv")
        decided = WeightSchedule.read(tmp_path / f"out/came-grad/seed-{other}/coefficients.csv")
        assert replayed.weights.tolist() == decided.weights.tolist(), "the schedule of the other seed"
    monkeypatch.setattr("rrg.train.train", lambda *a, **k: pytest.fail("trained again"))
    assert compare(config) == summary


def test_what_was_asked_for_is_not_run_twice_and_one_seed_has_no_others() -> None:
    names = [arm.name for arm in arms(CompareConfig(("linear", "came-grad:nu=0.6", "came-grad"), (0, 1)))]
    assert names.count("linear") == 1
    assert [name for name in names if name.startswith("replay")] == [
        "replay-mean(came-grad:nu=0.6)",
        "replay(came-grad:nu=0.6)",
    ]
    assert not [arm for arm in arms(CompareConfig(seeds=(0,))) if arm.source]
    assert [arm.name for arm in arms(CompareConfig(("mgda",), controls=False))] == [CONTROL, "mgda"]


def test_replays_of_a_run_that_failed_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = comparing.trained

    def failing(options: TrainConfig, console: object) -> object:
        if options.optimizer == "came-grad" and options.seed == 1:
            raise TrainingError("step 2: loss of task 0 is nan")
        return real(options, console)  # type: ignore[arg-type]

    monkeypatch.setattr(comparing, "trained", failing)
    config = CompareConfig(("came-grad",), (0, 1), tmp_path, dataclasses.replace(TINY, evaluate="none"))
    rows = {row["optimizer"]: row for row in compare(config)["optimizers"]}
    assert list(rows["replay(came-grad)"]["runs"]) == ["1"]
    assert "it replays failed for the seeds [1]" in rows["replay(came-grad)"]["failed"]["0"]


def test_an_optimizer_that_is_the_control_is_not_run_twice(tmp_path: Path) -> None:
    equal = dataclasses.replace(TINY, task_weights=(1.0, 1.0), evaluate="none")
    summary = compare(CompareConfig(("linear",), (0,), tmp_path, equal, controls=False))
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
    summary = compare(CompareConfig(("mgda",), (0, 1), tmp_path, base, controls=False))
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


def test_paired_intervals_are_those_of_scipy_and_adjusted_for_their_number() -> None:
    rng = np.random.default_rng(0)
    rows = {
        name: {seed: {"BLEU-4": float(rng.normal(shift)), "x": 1.0} for seed in range(6)}
        for name, shift in (("a", 0.0), ("b", 0.2), ("c", 5.0))
    }
    summary = summarize(rows, "a")
    assert {row["metric"] for row in summary["comparisons"]} == {"BLEU-4"}
    by_pair = {(row["first"], row["second"]): row for row in summary["comparisons"]}
    for (first, second), row in by_pair.items():
        pair = [[rows[name][seed]["BLEU-4"] for seed in range(6)] for name in (first, second)]
        test = stats.ttest_rel(*pair)
        interval = test.confidence_interval(0.95)
        assert (row["p"], row["low"], row["high"]) == pytest.approx((test.pvalue, interval.low, interval.high))
    ordered = sorted(row["p"] for row in by_pair.values())
    assert min(row["p_holm"] for row in by_pair.values()) == pytest.approx(3 * ordered[0])
    assert all(row["p"] <= row["p_holm"] <= 1 for row in by_pair.values())
    assert paired([1.0, 1.0], [1.0, 1.0])["p"] == 1.0
    assert paired([2.0, 2.0], [1.0, 1.0])["p"] == 0.0
