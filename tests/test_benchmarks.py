"""The benchmark scripts run; what they measure is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(script: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_report_generators(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(
        "report_generators.py",
        "--steps",
        "8",
        "--seeds",
        "0",
        "--out",
        str(out),
        "--results",
        str(tmp_path / "results"),
    )
    (path,) = (tmp_path / "results").glob("*.json")
    result = json.loads(path.read_text())
    rows = {row["optimizer"]: row for row in result["optimizers"]}
    assert len(rows) == 11
    assert result["control"] in rows
    assert rows["linear"]["step over linear"] == 1
    assert all(0 <= row["gradients"]["mean conflict rate"] <= 1 for row in rows.values())
    assert result["not measured"] or result["machine"]["gpu"]


@pytest.mark.slow
def test_gradient_log_cost() -> None:
    shown = run("gradient_log_cost.py", "--steps", "4", "--batch-size", "4", "--image-size", "32", "--no-save")
    assert "median ratio" in shown
