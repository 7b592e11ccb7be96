"""Peak memory of one simulation in a fresh process: the increase of the resident set over a warm-up of one small block.

    python benchmarks/peak_memory.py --paths 100000 --steps 100

Prints bytes. Used by ``growth.py``.
"""

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from peers.process import LEARNING_RATE, WEIGHTS, ornstein_uhlenbeck

from sde_mtl import LinearSDE, simulate

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Options:
    """Measure one size."""

    paths: int
    steps: int
    dimension: int = 16


def peak() -> int:
    """Largest resident set since the last :func:`forget`, bytes.

    Linux's ``ru_maxrss`` begins at the parent's, even after exec, so the process's own mark is read there.
    """
    if STATUS.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget() -> None:
    """Lower Linux's mark to what is resident now; elsewhere the mark of imports stays."""
    if RESET.exists():
        RESET.write_text("5")


def main(options: Options) -> None:
    """Simulate and print."""
    process = ornstein_uhlenbeck(options.dimension, diagonal=False)
    dynamics = LinearSDE(process.problem, process.noise, WEIGHTS, LEARNING_RATE)
    simulate(dynamics, process.start, 2, paths=2)
    forget()
    before = peak()
    simulate(dynamics, process.start, options.steps, paths=options.paths)
    print(peak() - before)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
