import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_training import same_weights, tiny

import rrg
from rrg.data.grammar import phantom_studies
from rrg.train import train
from sde_mtl import read_log


def test_a_run_leaves_what_it_promises(tmp_path: Path) -> None:
    done = train(tiny(tmp_path / "run", evaluate="val"))
    evaluation = done.result["evaluation"]
    assert evaluation["images"] == "rendered images"
    assert len(evaluation["bleu"]) == 4
    assert evaluation["decoding"].items() >= {"num_beams": 1, "max_length": 32}.items()
    samples = [json.loads(line) for line in (done.out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == evaluation["studies"]["val"]
    metrics = [json.loads(line) for line in (done.out / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == list(range(6))
    log = read_log(done.gradients)
    assert log.tasks == ("rg", "dc")
    assert log.steps.tolist() == list(range(6))
    assert log.losses[:, 0].tolist() == [m["rg"] for m in metrics]
    assert [f.step for f in log.frozen] == [3]
    assert log.meta["parameters"] == done.result["parameters"]


def test_seeds_and_optimizers_make_different_runs(tmp_path: Path) -> None:
    """Negative control of the equality above."""
    train(tiny(tmp_path / "a", log_gradients=False))
    train(tiny(tmp_path / "b", log_gradients=False, seed=1))
    train(tiny(tmp_path / "c", log_gradients=False, optimizer="linear"))
    assert not same_weights(tmp_path / "a", tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


TORCHJD = ["NashMTL", "GradDrop", "CAGrad:c=0.5", "TrimmedMean:trim_number=0", "Constant:weights=[1,2]"]


@pytest.mark.parametrize("name", TORCHJD)
def test_any_aggregator_of_torchjd_trains(tmp_path: Path, name: str) -> None:
    options = {"optimizer": f"torchjd:{name}", "log_gradients": False, "steps": 3}
    done = train(tiny(tmp_path / "run", **options))
    assert done.result["optimizer"]["name"] == f"torchjd:{name}"
    train(tiny(tmp_path / "linear", log_gradients=False, steps=3, optimizer="linear"))
    assert not same_weights(tmp_path / "run", tmp_path / "linear")
    if name == "NashMTL":
        with pytest.raises(ValueError, match="carries a state from step to step that TorchJD cannot save"):
            train(tiny(tmp_path / "run", **options, resume=True))


def test_a_run_is_never_overwritten_or_resumed_as_another(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run to resume"):
        train(tiny(tmp_path / "run", resume=True))
    train(tiny(tmp_path / "run", log_gradients=False, steps=3))
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))
    with pytest.raises(FileExistsError, match="--resume or choose another --out"):
        train(tiny(tmp_path / "run", log_gradients=False, steps=3))
    with pytest.raises(ValueError, match=r"must keep its options, but lr: 0\.003 → 0\.1"):
        train(tiny(tmp_path / "run", log_gradients=False, steps=3, lr=0.1, resume=True))
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*")) == before


def test_a_run_resumes_only_on_its_own_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(tmp_path / "run", log_gradients=False, steps=3))
    others = phantom_studies(60, seed=1)
    monkeypatch.setattr("rrg.data.corpus.phantom_studies", lambda n, seed: others)
    with pytest.raises(ValueError, match="was trained on other studies than those now read"):
        train(tiny(tmp_path / "run", log_gradients=False, steps=3, resume=True))


def test_late_errors_leave_no_folder(tmp_path: Path) -> None:
    for changes, message in (
        ({"batch_size": 1000}, "batch_size 1000 exceeds"),
        ({"steps": None, "epochs": 0.1, "frozen_at": (50.0,)}, "beyond the last of"),
    ):
        with pytest.raises(ValueError, match=message):
            train(tiny(tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()


def test_both_command_lines_start(tmp_path: Path) -> None:
    root = Path(rrg.__file__).parents[1]
    for command in (["-m", "rrg.train"], ["rrg/train.py"]):
        done = subprocess.run(
            [sys.executable, *command, "--dataset", "phantom", "--batch-size", "9999", "--out", str(tmp_path / "x")],
            cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "batch_size 9999 exceeds" in done.stdout
