"""The benchmark scripts run and judge rightly; what they measure is not tested."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

ROOT = Path(__file__).parents[1]
SPEED = ("dual_solve", "batched", "euler_maruyama", "came_grad_paths", "growth")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a file of benchmarks/ as the scripts do, and forgets all of them afterwards."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        found = getattr(sys.modules[name], "__file__", None)
        if found and Path(found).is_relative_to(ROOT / "benchmarks"):
            del sys.modules[name]


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
        "--phantom-studies",
        "120",
        "--seeds",
        "0",
        "1",
        "--out",
        str(out),
        "--results",
        str(tmp_path / "results"),
    )
    (path,) = (tmp_path / "results").glob("*.json")
    result = json.loads(path.read_text())
    rows = {row["optimizer"]: row for row in result["optimizers"]}
    assert len(rows) == 9
    assert result["control"] in rows
    assert {"replay(came-grad)", "replay-mean(came-grad)", "came-grad:track=0.99"} < rows.keys()
    assert all(row["mean"]["validation loss rg"] > 0 for row in [*rows.values(), {"mean": result["blind"]}])
    assert result["comparisons"]
    assert result["not measured"] or result["machine"]["gpu"]


@pytest.mark.slow
def test_gradient_log_cost() -> None:
    shown = run("gradient_log_cost.py", "--steps", "4", "--batch-size", "4", "--image-size", "32", "--no-save")
    assert "median ratio" in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", SPEED)
def test_quick_run_saves_goals_and_versions(name: str, tmp_path: Path) -> None:
    run(f"{name}.py", "--quick", "--results", str(tmp_path))
    (path,) = tmp_path.glob("speed-*.json")
    result = json.loads(path.read_text())
    assert {"processor", "threads", "torch"} <= result["machine"].keys()
    assert result["goals"]
    wrong = [goal for goal in result["goals"] if goal["verdict"] == "NOT met" and "standard errors" in goal["claim"]]
    assert not wrong
    run("run_all.py", "--render", "--results", str(tmp_path))
    (table,) = tmp_path.glob("*.md")
    assert "A smoke test" in table.read_text()
    assert all(goal["claim"] in table.read_text() for goal in result["goals"])


def test_quick_run_writes_nothing_unless_told(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = module("outcome")
    monkeypatch.setattr(outcome, "RESULTS", tmp_path)
    console = Console(file=(tmp_path / "shown").open("w"))
    outcome.Outcome("x", {}, []).finish(console, None, quick=True)
    assert not list(tmp_path.glob("*.json"))
    outcome.Outcome("x", {}, ["torch", "no-such-package"]).finish(console, None, quick=False)
    console.file.close()
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["packages"]["no-such-package"] is None


def test_slower_contestant_takes_longer_and_turns_alternate(module: Any) -> None:
    turns: list[str] = []

    def sleep(name: str, duration: float) -> None:
        turns.append(name)
        time.sleep(duration)

    found = module("timing").compare(
        {"fast": lambda: sleep("fast", 0.002), "slow": lambda: sleep("slow", 0.008)}, rounds=5, sample_seconds=1e-4
    )
    assert found["fast"].median < found["slow"].median
    assert found["fast"].lower <= found["fast"].median <= found["fast"].upper
    assert found["slow"].median >= 0.008
    assert turns[4:] != sorted(turns[4:])
    assert turns[-6:] == ["fast", "slow"] * 3


def test_budget_ends_the_rounds_after_three(module: Any) -> None:
    found = module("timing").compare({"a": lambda: time.sleep(0.002)}, rounds=50, budget_seconds=0.0)
    assert found["a"].rounds == 3
    with pytest.raises(ValueError, match="rounds = 2"):
        module("timing").compare({"a": int}, rounds=2)


@pytest.mark.parametrize(
    ("required", "measured", "least", "verdict"),
    [
        (2.0, 2.0, True, "met"),
        (2.0, 1.9, True, "NOT met"),
        (2.0, 1.9, False, "met"),
        (2.0, 2.1, False, "NOT met"),
        (None, 2.1, True, "reported"),
        (2.0, None, True, "not measured"),
    ],
)
def test_verdict(module: Any, required: float | None, measured: float | None, least: bool, verdict: str) -> None:
    assert module("outcome").Goal("1", "speed", required, measured, least).verdict == verdict


def test_power_law_recovers_its_exponent_and_tells_its_error(module: Any) -> None:
    fit = module("power_law").PowerLaw.fit
    sizes = [2.0**k for k in range(1, 9)]
    exact = fit(sizes, [3.0 * n**1.7 for n in sizes])
    assert exact.exponent == pytest.approx(1.7)
    assert exact.factor == pytest.approx(3.0)
    assert exact.error < 1e-12
    generator = np.random.default_rng(0)
    noisy = fit(sizes, [3.0 * n**1.7 * np.exp(0.1 * generator.standard_normal()) for n in sizes])
    assert 0 < abs(noisy.exponent - 1.7) < 4 * noisy.error
    with pytest.raises(ValueError, match="2 points"):
        fit([1.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("diagonal", [True, False])
def test_moments_accept_the_right_process_and_reject_a_wrong_one(module: Any, precision: str, diagonal: bool) -> None:
    process, loop = module("peers.process"), module("peers.sde_numpy").loop
    right = process.ornstein_uhlenbeck(2, diagonal=diagonal)
    ends = loop(right, 4000, 100, precision)(0)
    assert ends.dtype == precision
    assert process.Moments.of(ends, 100).standard_errors(right) < 5
    assert process.Moments.of(1.1 * ends, 100).standard_errors(right) > 5
    assert process.Moments.of(ends, 50).standard_errors(right) > 5
    other = process.ornstein_uhlenbeck(2, diagonal=not diagonal, seed=1)
    assert process.Moments.of(ends, 100).standard_errors(other) > 5


def test_who_is_wrong_wins_nothing(module: Any) -> None:
    script, timing = module("euler_maruyama"), module("timing").Timing(1.0, 1.0, 1.0, 3, 1, 1.0)
    slow = module("timing").Timing(30.0, 30.0, 30.0, 3, 1, 30.0)

    def ratio(ours: float, peer: float) -> float | None:
        row = {script.OURS: script.Measured(timing, 10, 10, ours), "torchsde": script.Measured(slow, 10, 10, peer)}
        goals = script.goals(2, {(2, "float32", "full"): row})
        return {goal.required: goal.measured for goal in goals}[20.0]

    assert ratio(1.0, 1.0) == pytest.approx(30.0)
    assert ratio(1e3, 1.0) is None
    assert ratio(1.0, 1e3) is None


def test_shortfall_is_zero_for_the_optimum_alone(module: Any) -> None:
    dual = module("peers.dual_problem")
    G = np.array([[1.0, 0.0], [-0.6, 0.4]])
    problem = dual.DualProblem.of(G)
    exact = module("dual_solve").ours(2, 0.5)["optimizers.solve_dual"](problem)()
    best = dual.dual_value(problem.array, exact, 0.5)
    assert dual.shortfall(problem.array, exact, 0.5, best) < 1e-15
    assert dual.shortfall(problem.array, exact + np.array([1e-6, -1e-6]), 0.5, best) > 1e-8
    assert dual.shortfall(problem.array, 2.0 * exact, 0.5, best) > 0.1
    assert dual.shortfall(problem.array, np.full(2, 0.5), 0.5, best) > 0.1
    assert dual.shortfall(problem.array, np.zeros(2), 0.5, best) >= 0.5


@pytest.mark.parametrize(
    ("peer", "tolerance"), [("dual_torchjd", 1e-3), ("dual_slsqp", 1e-2), ("dual_cvxpy", 1e-3), ("dual_clarabel", 1e-3)]
)
@pytest.mark.parametrize("tasks", [2, 5])
def test_peers_are_given_our_problem(module: Any, peer: str, tolerance: float, tasks: int) -> None:
    dual = module("peers.dual_problem")
    problem = dual.DualProblem.of(dual.random_gradients(tasks, np.random.default_rng(0)))
    solvers = module(f"peers.{peer}").solvers(tasks, 0.5)
    (ours,) = module("dual_solve").ours(tasks, 0.5).values()
    best = dual.dual_value(problem.array, ours(problem)(), 0.5)
    elsewhere = dual.DualProblem.of(dual.random_gradients(tasks, np.random.default_rng(1)))
    for name, solve in solvers.items():
        solve(elsewhere)  # whatever a solver keeps must not show in the next answer
        assert dual.shortfall(problem.array, solve(problem)(), 0.5, best) < tolerance, name


def test_failures_are_told_and_are_worse_than_any_error(module: Any) -> None:
    script, dual = module("dual_solve"), module("peers.dual_problem")
    problem = dual.DualProblem.of(np.eye(2))

    def broken(problem: Any) -> Any:
        raise ArithmeticError

    contestants = {**script.ours(2, 0.5), "broken": broken, "nan": lambda problem: lambda: np.full(2, np.nan)}
    found = script.errors(contestants, problem)
    assert found["optimizers.solve_dual"] < 1e-15
    assert (found["broken"], found["nan"]) == ("raises ArithmeticError", "not finite")
    assert script.worst([{"a": 1.0}, {"a": "raises X"}])["a"] == "raises X"
    assert script.worst([{"a": 1.0}, {"a": 2.0}])["a"] == 2.0


def test_missing_peer_is_named_with_its_remedy(module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sdeint", None)
    shown = tmp_path / "shown"
    with shown.open("w") as file:
        found = module("peers").load(["sde_sdeint", "sde_numpy"], Console(file=file, width=200))
    assert list(found) == ["sde_numpy"]
    assert "sdeint is not installed, pip install -e .[peers]" in shown.read_text()


def test_peak_memory_sees_what_is_held() -> None:
    code = "import numpy, peak_memory; a = peak_memory.peak(); b = numpy.ones(1 << 23); print(peak_memory.peak() - a)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "benchmarks"
    )
    assert int(done.stdout) > 60 << 20
