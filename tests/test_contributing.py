"""CONTRIBUTING names what exists: paths, targets, commands, tests and registries."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import tyro

from rrg.cli import Command as Rrg
from sde_mtl.cli import Command as SdeMtl

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"`([^`\n]+)`", TEXT)
COMMANDS = [*re.findall(r"^    (\S.*)$", TEXT, re.M), *(words for words in QUOTED if " " in words)]


def paths(text: str) -> list[str]:
    """Words that name a file or a folder of the repository, without a test's name behind it."""
    words = [word.partition("::")[0] for word in text.split()]
    return [word for word in words if re.fullmatch(r"[\w.]+(/[\w.-]+)+/?|[\w.-]+\.(md|py|txt|toml|yml)", word)]


def test_paths_exist() -> None:
    named = {path for words in [*QUOTED, *COMMANDS] for path in paths(words)}
    named |= set(re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT))
    named -= {"out/try", ".venv/bin/activate", "__init__.py"}  # made by commands; of any folder
    assert len(named) > 30
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake (\w+)", "\n".join(COMMANDS)))
    assert {"test", "slow", "lint", "book", "bench"} <= named <= targets


def test_dotted_names_are_importable() -> None:
    named = {name for name in QUOTED if re.fullmatch(r"(optimizers|sde_mtl|rrg)(\.\w+)+", name)}
    registries = {"optimizers.aggregators.by_name.AGGREGATORS", "sde_mtl.theory.STATEMENTS", "rrg.model.config.TASKS"}
    assert registries <= named
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize(
    ("name", "path"),
    [("CAGradToy", "sde_mtl/problems/landscapes.py"), ("alignment_loss", "rrg/model/tasks.py"),
     ("task_losses", "rrg/model/tasks.py"), ("orders", "sde_mtl/figures/theory.py"),
     ("PROBLEMS", "tests/sde_mtl/problems/test_landscapes.py"), ("check", "sde_mtl/theory/t08_kappa.py")],
)  # fmt: skip
def test_what_is_to_be_copied_or_extended_is_where_it_says(name: str, path: str) -> None:
    assert f"`{name}`" in TEXT
    assert f"`{path}`" in TEXT
    assert re.search(rf"^(def |class )?{name}\b", (ROOT / path).read_text(encoding="utf-8"), re.M)


def test_commands_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this project are parsed, not run; of others the program must be there."""
    monkeypatch.chdir(tmp_path)
    programs = set()
    for command in COMMANDS:
        program, *words = shlex.split(command)
        programs.add(program)
        if program in ("rrg", "sde-mtl"):
            tyro.cli(Rrg if program == "rrg" else SdeMtl, args=words)  # type: ignore[arg-type]
        elif program == "python" and words[0] == "-m":
            module, _, target = words[2].partition(":")
            assert importlib.util.find_spec(words[1]) is not None
            assert hasattr(importlib.import_module(module), target)
        else:
            assert program in ("make", "source", "pytest", "python", "ruff", "pre-commit"), command
    assert {"rrg", "sde-mtl", "make", "pytest", "python", "ruff"} <= programs
    assert shutil.which("pytest") or importlib.util.find_spec("pytest")


def test_names_that_do_not_exist_would_be_found() -> None:
    """Negative control."""
    assert paths("pytest tests/no_such.py::test_it -k x CHANGELOG.md") == ["tests/no_such.py", "CHANGELOG.md"]
    assert paths("optimizers:imtl_g sde_mtl.theory.STATEMENTS --out T8") == []
