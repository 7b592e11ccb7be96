import json
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import logs
import pytest

from optimizers.aggregators.by_name import AGGREGATORS
from sde_mtl import cli
from sde_mtl.simulation import SCHEMES
from sde_mtl.theory import Check


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sde_mtl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def in_process(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sde-mtl", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_verify_prints_rows_and_writes_them(tmp_path: Path) -> None:
    done = run("verify", "--statements", "T1", "T2", "--json", str(tmp_path / "v.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as they should be" in done.stdout
    rows = json.loads((tmp_path / "v.json").read_text())["checks"]
    assert {row["id"][:2] for row in rows} == {"T1", "T2"}
    assert all(row["passed"] for row in rows)


def test_verify_fails_when_a_check_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    wrong = Check("T1.x", "1 = 2", 1, 2, 1.0, 0.1, "absolute", "by hand")
    unnoticed = Check("T1.y", "1 = 1, wrong", 1, 1, 0.0, 0.1, "absolute", "by hand", control=True)
    monkeypatch.setitem(cli.STATEMENTS, "T1", lambda seed, paths: [wrong])
    assert in_process(monkeypatch, "verify", "--statements", "T1") == 1
    assert "FAILED T1.x" in capsys.readouterr().out
    monkeypatch.setitem(cli.STATEMENTS, "T1", lambda seed, paths: [unnoticed])
    assert in_process(monkeypatch, "verify", "--statements", "T1") == 1
    assert "NOT REJECTED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--statements", "T99"], "unknown statements ['T99']"),
        (["verify", "--paths", "3"], "paths = 3 must be >= 100"),
        (["analyze", "nowhere"], "nowhere is no folder"),
        (["analyze"], "at least one folder"),
        (["report", "nowhere"], "verify.json is missing"),
        (["simulate", "--learning-rate", "-1"], "learning_rate = -1"),
        (["simulate", "--correlation", "-2"], "positive semidefinite"),
        (["simulate", "--aggregator", "came-grad", "--scheme", "euler-maruyama"], "others have --scheme effective-sde"),
        (["simulate", "--aggregator", "came-grad", "--scheme", "linear-sde"], "others have --scheme effective-sde"),
        (["simulate", "--aggregator", "sgd"], "unknown aggregator 'sgd'; there are linear, equal"),
        (["simulate", "--aggregator", "cagrad:nu=1"], "cagrad has no option nu; it has c"),
        (["simulate", "--steps", "0"], "steps = 0"),
    ],
)
def test_bad_requests_end_with_2_and_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    assert in_process(monkeypatch, *arguments) == 2
    assert message in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("options", [
    *(["--aggregator", name] for name in AGGREGATORS), ["--aggregator", "came-grad:nu=0.6"],
    *(["--scheme", name] for name in SCHEMES), ["--scheme", "euler-maruyama"],
])  # fmt: skip
def test_simulate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, options: list[str]) -> None:
    assert in_process(monkeypatch, "simulate", "--steps", "20", "--paths", "50", *options) == 0
    assert "50 paths" in capsys.readouterr().out


def test_options_of_an_aggregator_change_the_simulation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shown = []
    for name in ("came-grad", "came-grad:nu=0.2", "came-grad:nu=0.9"):
        in_process(monkeypatch, "simulate", "--steps", "20", "--paths", "50", "--aggregator", name)
        shown.append(capsys.readouterr().out.split("┏")[1])  # without the title
    assert shown[0] == shown[1] != shown[2]


def test_the_old_name_of_a_scheme_works_and_tells_the_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shown = []
    for scheme in ("euler-maruyama", "linear-sde"):
        assert in_process(monkeypatch, "simulate", "--steps", "20", "--paths", "50", "--scheme", scheme) == 0
        shown.append(capsys.readouterr().out)
    deprecation, table = shown[0].split("\n", 1)
    assert "is deprecated; its new name is --scheme linear-sde" in deprecation
    assert table == shown[1]


def test_every_scheme_can_be_chosen() -> None:
    assert set(get_args(get_type_hints(cli.Simulate)["scheme"])) == {*SCHEMES, *cli.RENAMED}
    assert set(cli.RENAMED.values()) <= SCHEMES.keys()


def test_simulate_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert in_process(monkeypatch, "simulate", "--steps", "20", "--paths", "50", "--figure", str(tmp_path)) == 0
    assert (tmp_path / "moments.png").stat().st_size > 5000


def test_analyze_and_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    folders = [
        str(logs.write_log(tmp_path / name, name=name, seed=seed, correlation=c))
        for seed, (name, c) in enumerate([("linear", -0.8), ("came-grad", 0.0)])
    ]
    out = tmp_path / "out"
    assert in_process(monkeypatch, "analyze", *folders, "--out", str(out), "--replicates", "100") == 0
    shown = capsys.readouterr().out
    assert "paper 53.8%" in shown
    analysis = json.loads((out / "analysis.json").read_text())
    assert [log["name"] for log in analysis["logs"]] == ["linear", "came-grad"]
    decay = {v["log"]: v["outcome"] for v in analysis["verdicts"] if v["claim"].startswith("diffusion decay")}
    assert decay == {"linear": "seen", "came-grad": "not seen"}
    for name in analysis["figures"]:
        assert (out / name).stat().st_size > 5000
    assert in_process(monkeypatch, "verify", "--statements", "T1", "--json", str(out / "verify.json")) == 0
    assert in_process(monkeypatch, "report", str(out)) == 0
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 5
    assert "not seen" in page
    assert "<script" not in page
    (out / "analysis.json").write_text("{")
    assert in_process(monkeypatch, "report", str(out)) == 2
    assert (out / "report.html").read_text() == page


def test_claims_rest_on_statements_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """Every statement is claimed somewhere, and every command names a statement or file that exists."""
    assert in_process(monkeypatch, "claims", "--json", str(tmp_path / "c.json")) == 0
    assert "not testable here" in " ".join(capsys.readouterr().out.split())
    rows = json.loads((tmp_path / "c.json").read_text())["claims"]
    used = {statement for row in rows for statement in row["statements"]}
    assert used == set(cli.STATEMENTS)
    root = Path(cli.__file__).parents[1]
    for row in rows:
        for command in map(str.split, row["shown_by"].split(";")):
            if command[0] == "pytest":
                assert (root / command[1]).exists()
            if "--statements" in command:
                assert set(command[command.index("--statements") + 1 :]) == set(row["statements"])
