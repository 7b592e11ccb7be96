import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = ["--steps", "24", "--phantom-studies", "120", "--image-size", "32", "--frozen-batches", "8", "--batch-size", "8"]
TINY += ["--statements", "T1", "T3", "T5", "--model.encoder-widths", "8", "16", "--model.encoder-depths", "1", "1"]
TINY += ["--model.decoder-width", "32", "--model.decoder-layers", "1"]


def demo(out: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rrg.demo", "--out", str(out), *TINY, *options],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tiny demo where the real reports cannot be had: pip sees no index."""
    out = tmp_path_factory.mktemp("demo") / "out"
    empty = tmp_path_factory.mktemp("empty")
    finished = demo(out, XDG_CACHE_HOME=str(empty), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(empty))
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return out, finished.stdout


def test_it_falls_back_and_says_why(done: tuple[Path, str]) -> None:
    _, shown = done
    assert "falling back to phantom reports: could not download" in shown
    assert "the real ones could not be had" in shown


def test_it_ends_with_tables_and_a_page(done: tuple[Path, str]) -> None:
    out, shown = done
    for part in (
        "sde-mtl verify",
        "gradient logs (rendered images)",
        "empirical SDE, came-grad",
        "verdicts",
        "training, phantom reports",
    ):
        assert part in shown
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 5
    for name in ("conflict.png", "deviation.png", "diffusion.png", "effective.png"):
        assert (out / name).stat().st_size > 5000


def test_both_runs_are_there_and_differ(done: tuple[Path, str]) -> None:
    out, _ = done
    analysis = json.loads((out / "analysis.json").read_text())
    assert [log["name"] for log in analysis["logs"]] == ["linear", "came-grad"]
    assert all(log["steps"] == 24 for log in analysis["logs"])
    assert all(len(log["diffusion"]) == 3 for log in analysis["logs"])
    results = [json.loads((out / name / "result.json").read_text()) for name in ("linear", "came-grad")]
    assert results[0]["training_losses"] != results[1]["training_losses"]
    assert all(r["evaluation"]["images"] == "rendered images" for r in results)
    first = json.loads((out / "linear/metrics.jsonl").read_text().splitlines()[0])
    assert results[0]["training_losses"]["rg"] < first["rg"], "24 steps must lower the loss"


def test_a_second_call_trains_nothing(done: tuple[Path, str]) -> None:
    out, _ = done
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    begun = time.perf_counter()
    again = demo(out, "--dataset", "phantom")
    assert again.returncode == 0
    assert "already trained" in again.stdout
    assert "verified before" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == stamps
    assert time.perf_counter() - begun < 120


def test_other_options_do_not_overwrite_a_demo(done: tuple[Path, str]) -> None:
    out, _ = done
    refused = demo(out, "--dataset", "phantom", "--seed", "1")
    assert refused.returncode == 2
    assert "holds a run with other options" in " ".join(refused.stdout.split())
