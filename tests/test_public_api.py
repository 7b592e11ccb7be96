"""What users call keeps its names, parameters, defaults and command-line options.

``public_api.json`` holds them as they were released; what is new may be added with ``python tests/test_public_api.py``.
What is there goes only through a deprecation that names the new spelling.
"""

import contextlib
import importlib
import inspect
import io
import json
import os
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tyro

SNAPSHOT = Path(__file__).with_name("public_api.json")
PACKAGES = ("optimizers", "optimizers.oracle", "optimizers.torchjd", "optimizers.testing", "sde_mtl", "rrg")
PREPARE = ("prepare iu-xray", "prepare mimic-cxr", "prepare pair")
COMMANDS = {
    "sde-mtl": ("sde_mtl.cli", ("verify", "claims", "simulate", "analyze", "sweep", "figures", "report")),
    "rrg": ("rrg.cli", ("train", "evaluate", "compare", "demo", *PREPARE)),
}  # fmt: skip
OURS = ("optimizers", "sde_mtl", "rrg")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
CHOICES = re.compile(r"(--[a-z][\w.-]*) (?:\[[^\]]*\] )?\{([^}]*)\}")


def parameters(function: Any) -> list[str]:
    """Names, kinds and defaults, without annotations: they name modules, which may move."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return []
    found = [str(p.replace(annotation=inspect.Parameter.empty)) for p in signature.parameters.values()]
    return [re.sub(" at 0x[0-9a-f]+", "", parameter) for parameter in found]


def own(member: Any) -> bool:
    """Whether it is a method of ours and not inherited from Python or torch."""
    return inspect.isroutine(member) and (getattr(member, "__module__", None) or "").startswith(OURS)


def described(value: Any) -> Any:
    if inspect.isclass(value):
        members = {
            name: "property" if isinstance(member, property) else parameters(member)
            for name, member in inspect.getmembers(value)
            if not name.startswith("_") and (isinstance(member, property) or own(member))
        }
        return {"call": parameters(value), "members": members}
    return parameters(value) if callable(value) else type(value).__name__


def names(package: str) -> list[str]:
    module = importlib.import_module(package)
    return list(getattr(module, "__all__", [name for name in vars(module) if name in ("primal", "dual")]))


def options(module: str, command: str) -> dict[str, list[str]]:
    """Flags of a command, each with its choices."""
    out = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": "4000"}), contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        tyro.cli(importlib.import_module(module).Command, args=[*command.split(), "--help"])  # type: ignore[arg-type]
    text = out.getvalue()
    found: dict[str, list[str]] = {flag: [] for flag in OPTION.findall(text)}
    return found | {flag: re.split(r"[,|]", choices) for flag, choices in CHOICES.findall(text)}


def today() -> dict[str, Any]:
    return {
        "packages": {
            package: {name: described(getattr(importlib.import_module(package), name)) for name in names(package)}
            for package in PACKAGES
        },
        "commands": {
            f"{program} {command}": options(module, command)
            for program, (module, commands) in COMMANDS.items()
            for command in commands
        },
    }


def lost(before: Any, now: Any, path: str = "") -> list[str]:
    """What is missing or different; more names and choices are welcome."""
    if isinstance(before, dict):
        if not isinstance(now, dict):
            return [f"{path} is {now}"]
        return [w for k in before for w in (lost(before[k], now[k], f"{path}/{k}") if k in now else [f"{path}/{k}"])]
    if "/commands/" in path:
        return [f"{path}: {choice}" for choice in before if choice not in now]
    return [] if before == now else [f"{path}: {before} → {now}"]


def test_nothing_that_users_call_was_lost() -> None:
    assert lost(json.loads(SNAPSHOT.read_text()), today()) == []


def test_what_is_lost_is_found() -> None:
    """Negative control."""
    snapshot = json.loads(SNAPSHOT.read_text())
    now = json.loads(SNAPSHOT.read_text())
    del now["packages"]["optimizers"]["mgda"]
    now["packages"]["optimizers"]["came_grad"][2] = "rho=0.4"
    schemes = snapshot["commands"]["sde-mtl simulate"]["--scheme"]
    now["commands"]["sde-mtl simulate"]["--scheme"] = ["recursion"]
    assert len(lost(snapshot, now)) == 2 + len(schemes) - 1
    assert len(snapshot["commands"]["rrg train"]) > 60


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(today(), indent=1, ensure_ascii=False) + "\n")
