"""What `make lint` runs: commands of its own environment, which find what they are there to find."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("pre_commit")
ROOT = Path(__file__).parents[1]
CONFIG = ROOT / ".pre-commit-config.yaml"
HOOKS = {hook["id"]: hook for repo in yaml.safe_load(CONFIG.read_text())["repos"] for hook in repo["hooks"]}
BIN = Path(sys.executable).parent
FLAWS = {
    "ruff-check": (".py", "import os\n"),
    "ruff-format": (".py", "x = [1,2]\n"),
    "trailing-whitespace": (".md", "text \n"),
    "end-of-file": (".md", "text"),
    "line-endings": (".md", "text\r\n"),
    "yaml": (".yml", "a: [1\n"),
    "toml": (".toml", "a = \n"),
    "json": (".json", "{1}\n"),
    "merge-conflict": (".md", "<<<<<<< ours\n"),
    "debug-statements": (".py", "breakpoint()\n"),
    "private-key": (".md", "-----BEGIN RSA " + "PRIVATE KEY-----\n"),
    "executables": (".sh", "true\n"),
    "large-files": (".txt", "0\n" * 300_000),
}


def test_hooks_come_with_the_environment_and_need_no_network() -> None:
    assert {repo["repo"] for repo in yaml.safe_load(CONFIG.read_text())["repos"]} == {"local"}
    assert {hook["language"] for hook in HOOKS.values()} == {"system"}
    assert {"ruff-check", "ruff-format", "mypy"} <= set(HOOKS)
    commands = {hook["entry"].split()[0] for hook in HOOKS.values()}
    assert [command for command in commands if shutil.which(command, path=str(BIN)) is None] == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with this configuration and an empty home."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (tmp_path / "home").mkdir()
    shutil.copy(CONFIG, folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def lint(folder: Path) -> tuple[int, set[str]]:
    """Exit status, and the hooks that failed."""
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"HOME": str(folder.parent / "home"), "PATH": f"{BIN}:{os.environ['PATH']}"}
    environment |= {"PRE_COMMIT_HOME": str(folder.parent / "kept"), "SKIP": "mypy"}
    command = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, set(re.findall(r"^- hook id: (\S+)$", done.stdout, re.M))


def test_flaws_are_found(repository: Path) -> None:
    assert lint(repository) == (0, set())
    for hook, (suffix, text) in FLAWS.items():
        (repository / f"{hook}{suffix}").write_bytes(text.encode())
    (repository / "executables.sh").chmod(0o755)
    assert lint(repository) == (1, set(FLAWS))
    assert set(HOOKS) - set(FLAWS) == {"mypy", "case"}  # names that differ by case only are not possible everywhere
