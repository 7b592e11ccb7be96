"""The phase diagrams of T6, which take minutes, kept: ``python -m sde_mtl.book.phases book/results/phases.json``."""

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from sde_mtl.theory.t06_resting_points import PhaseDiagram, phase_diagram

NUS = (0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.44, 0.47, 0.49, 0.51, 0.53, 0.56, 0.6, 0.7, 0.8, 0.9)
RHOS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)


def read_phases(path: str | Path) -> list[PhaseDiagram]:
    """Diagrams by gradient descent and by Adam.

    Args:
        path: of a file that this module wrote.

    Example:
        >>> from sde_mtl.book.results import cached_result
        >>> [diagram.adam for diagram in read_phases(cached_result("phases.json"))]
        [False, True]
    """
    entries: list[dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))["diagrams"]
    return [_diagram(**entry) for entry in entries]


def _diagram(adam: bool, **axes: list[Any]) -> PhaseDiagram:
    return PhaseDiagram(**{name: np.array(values) for name, values in axes.items()}, adam=adam)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute both diagrams, and write them with their provenance beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="JSON file to write")
    parser.add_argument("--steps", type=int, default=6000, help="of training, each resting point")
    chosen = parser.parse_args(arguments)
    start = perf_counter()
    diagrams = [phase_diagram(NUS, RHOS, steps=chosen.steps, adam=adam) for adam in (False, True)]
    entries = [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(d).items()} for d in diagrams]
    provenance: dict[str, Any] = {
        "command": f"python -m sde_mtl.book.phases {chosen.path}",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "wall_seconds": round(perf_counter() - start, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    chosen.path.parent.mkdir(parents=True, exist_ok=True)
    chosen.path.write_text(json.dumps({"diagrams": entries}) + "\n", encoding="utf-8")
    chosen.path.with_suffix(".provenance.json").write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
