"""The phase diagrams of T6, which take minutes: read back where they are kept, and made anew."""

import json
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from optimizers.files import write_json
from sde_mtl.figures.gallery import NUS, RHOS
from sde_mtl.theory.descent import PhaseDiagram, phase_diagram


def read_phases(path: str | Path) -> list[PhaseDiagram]:
    """Diagrams by gradient descent and by Adam.

    Args:
        path: of a file that :func:`write_phases` wrote.

    Example:
        >>> from sde_mtl.book import kept_result
        >>> [diagram.adam for diagram in read_phases(kept_result("phases.json"))]
        [False, True]
    """
    entries: list[dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))["diagrams"]
    return [_diagram(**entry) for entry in entries]


def _diagram(adam: bool, **axes: list[Any]) -> PhaseDiagram:
    return PhaseDiagram(**{name: np.array(values) for name, values in axes.items()}, adam=adam)


def write_phases(path: Path, *, steps: int = 6000) -> None:
    """Compute both diagrams, and write them with their provenance beside them.

    Args:
        path: of the JSON file; its folder is made if it is not there.
        steps: of training, each resting point.
    """
    start = perf_counter()
    diagrams = [phase_diagram(NUS, RHOS, steps=steps, adam=adam) for adam in (False, True)]
    entries = [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(d).items()} for d in diagrams]
    provenance: dict[str, Any] = {
        "command": f"python -m sde_mtl.book phases {path}",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "wall_seconds": round(perf_counter() - start, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"diagrams": entries}, indent=None)
    write_json(path.with_suffix(".provenance.json"), provenance, indent=1)
