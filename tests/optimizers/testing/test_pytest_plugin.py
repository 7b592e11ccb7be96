"""``pytest --pyargs optimizers.testing --aggregator …``: its table, its exit status, and what other runs see of it."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from optimizers.testing import PROPERTIES, command, options
from optimizers.testing.__main__ import main

ROOT = Path(__file__).parents[3]
MODULE = """
def mean(matrix):
    return matrix.mean(0)


def broken(matrix):
    raise RuntimeError("no way")
"""
QUICK = ["--aggregator-examples", "60"]


def run(folder: Path, *words: str, plugin: bool = True) -> subprocess.CompletedProcess[str]:
    """In an empty folder with a module of two aggregators, on this source tree."""
    (folder / "mine.py").write_text(MODULE)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "optimizers.testing.options"] if plugin else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "150"}
    return subprocess.run(
        [*command, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def verdicts(output: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) +(holds|fails|not applicable)", output, re.MULTILINE))


def test_findings_are_no_errors(tmp_path: Path) -> None:
    """Properties fail, the run does not; the table names every property once."""
    done = run(tmp_path, "--pyargs", "optimizers.testing", "--aggregator", "mine:mean", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("conformance of mine:mean") == 1
    found = verdicts(done.stdout)
    assert list(found) == list(PROPERTIES)
    assert found["non_conflicting"] == "fails"
    assert found["linear_under_scaling"] == "holds"
    assert found["batch_equals_loop"] == "not applicable"
    assert "takes one matrix at a time" in done.stdout
    assert re.search(r"non_conflicting +fails +G = \[\[1\], \[-2\]\]", done.stdout)


@pytest.mark.parametrize(
    ("required", "status"),
    [("finite,linear_under_scaling", 0), ("non_conflicting", 1), ("batch_equals_loop", 1), ("all", 1)],
)
def test_required_properties_decide_the_exit_status(tmp_path: Path, required: str, status: int) -> None:
    words = ["--pyargs", "optimizers.testing", "--aggregator", "mine:mean", "--require", required, *QUICK]
    words += ["-k", "finite or linear_under_scaling or non_conflicting or batch_equals_loop"]
    done = run(tmp_path, *words)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("required, but does not hold" in done.stdout) == bool(status)


def test_an_aggregator_that_raises_fails_everywhere_and_the_suite_goes_on(tmp_path: Path) -> None:
    done = run(tmp_path, "--pyargs", "optimizers.testing", "--aggregator", "mine:broken", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(verdicts(done.stdout).values()) == {"fails", "not applicable"}
    assert "raises RuntimeError: no way" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "optimizers.testing needs --aggregator MODULE:NAME"),
        (["--aggregator", "mine:nothing"], "'mine' has no 'nothing'"),
        (["--aggregator", "nowhere:x"], "No module named 'nowhere'"),
        (["--aggregator", "mine:mean", "--require", "convex"], "'convex' is no property; known: finite"),
        (["--aggregator", "mine:mean", "--aggregator-tasks", "few"], "tasks = 'few' must be a number or a range"),
        (["--aggregator", "mine:mean", "--aggregator-examples", "0"], "examples = 0"),
    ],
)
def test_bad_usage_ends_before_anything_runs(tmp_path: Path, words: list[str], message: str) -> None:
    done = run(tmp_path, "--pyargs", "optimizers.testing", *words)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr


def test_other_runs_do_not_collect_the_suite(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_one():\n    pass\n")
    done = run(tmp_path, "test_mine.py", str(ROOT / "optimizers/testing"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "conformance" not in done.stdout


def test_the_module_runs_without_pytest(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--examples", "10", "--tasks", "2", "optimizers:linear"]
    assert main(words) == 0
    assert list(verdicts(capsys.readouterr().out)) == list(PROPERTIES)
    assert main(["--require", "non_conflicting", *words]) == 1
    assert "required, but does not hold: non_conflicting" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["optimizers:nothing"])
    assert "'optimizers' has no 'nothing'" in capsys.readouterr().err


def test_options_cost_no_import_of_torch() -> None:
    """The wheel installs the file beside the package, and every run of pytest imports it."""
    assert options.SUBJECT == command.SUBJECT
    code = (
        "import importlib.util as u, sys\n"
        f"spec = u.spec_from_file_location('options', {str(ROOT / 'optimizers/testing/options.py')!r})\n"
        "spec.loader.exec_module(u.module_from_spec(spec))\n"
        "assert not {'torch', 'optimizers', 'hypothesis'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_wheel_runs_the_suite_with_no_plugin_named(tmp_path: Path) -> None:
    """From an installed wheel: the entry point adds the options, and --pyargs finds the suite."""
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True, capture_output=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.py").write_text(MODULE)
    words = ["--pyargs", "optimizers.testing", "--aggregator", "mine:mean", "--require", "finite", *QUICK]
    done = subprocess.run(
        [python, "-m", "pytest", *words],
        cwd=tmp_path / "run",
        env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(verdicts(done.stdout)) == list(PROPERTIES)
    assert done.stdout.count("conformance of mine:mean") == 1
