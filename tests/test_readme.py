import doctest
import re
import shlex
from pathlib import Path

import pytest
import tyro

from rrg.cli import Command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_python_runs() -> None:
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted >= 3
    assert result.failed == 0


def test_its_commands_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    mentioned = set(re.findall(r"\bmake (\w+)", README))
    assert {"demo", "test"} <= mentioned <= targets


def test_its_rrg_commands_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed, not run, beside the files that they name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "physionet/mimic-cxr-jpg").mkdir(parents=True)
    for name in ("mimic-cxr-reports.zip", "radiographs/index.csv", "data/pair/annotation.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    commands = re.findall(r"^    rrg (.*)$", README.replace("\\\n", " "), re.M)
    assert len(commands) >= 6
    for command in commands:
        tyro.cli(Command, args=shlex.split(command, comments=True))  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        tyro.cli(Command, args=["train", "--no-such-option"])  # type: ignore[arg-type]


def test_its_links_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
