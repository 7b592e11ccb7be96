"""Runs a worker script of tests/optimizers on two gloo processes, or as a module in this one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

SCRIPTS = Path(__file__).parent / "optimizers"


def as_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(name).name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, folder: Path) -> list[dict[str, Any]]:
    """What each of the two processes ended with; a deadlock ends in a timeout."""
    command = [sys.executable, "-W", "error", str(SCRIPTS / f"{name}.py")]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parents[1])}
    processes = [
        subprocess.Popen([*command, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=90)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(error[-1500:] for error in errors)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]
