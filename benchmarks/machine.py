"""What a measurement was made on, and where its JSON goes."""

import json
import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from optimizers.files import write_bytes

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Device, cores, threads and versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or f"CPU, {platform.machine()}, {os.cpu_count()} cores",
        "gpu": gpu,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """Model name of the CPU, as far as the system tells it."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Installed version of each package; None where it is not installed."""
    found: dict[str, str | None] = {}
    for package in sorted(set(packages)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def device_slug() -> str:
    """The device's name as it occurs in file names."""
    return re.sub(r"[^a-z0-9]+", "-", machine()["device"].lower()).strip("-")


def write(name: str, value: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``NAME-DEVICE.json``, so that machines stand beside each other; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{device_slug()}.json"
    write_bytes(path, (json.dumps({"machine": machine(), **value}, indent=1, allow_nan=False) + "\n").encode())
    return path
