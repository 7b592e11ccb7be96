"""What a measurement was made on, and where its JSON goes."""

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Device, cores, threads and versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or f"CPU, {platform.machine()}, {os.cpu_count()} cores",
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write(name: str, value: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``NAME-DEVICE.json``, so that machines stand beside each other; the path."""
    slug = re.sub(r"[^a-z0-9]+", "-", machine()["device"].lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{slug}.json"
    path.write_text(json.dumps({"machine": machine(), **value}, indent=1, allow_nan=False) + "\n")
    return path
