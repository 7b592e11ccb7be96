"""How long the commands of the book's page "Reproduce everything" take, each in its own process.

python benchmarks/commands.py
"""

import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import tyro
from machine import RESULTS, write

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "sde-mtl claims",
    "sde-mtl simulate",
    "sde-mtl verify",
    "sde-mtl figures --out {folder}/figures",
    "rrg train --dataset phantom --steps 100 --out {folder}/run",
    "jupyter-book build --all --path-output {folder}/book book",
)


@dataclass(frozen=True)
class Options:
    """Time every command."""

    commands: tuple[str, ...] = COMMANDS
    """With {folder} for a temporary one."""
    results: Path = RESULTS
    """Folder of the result."""


def main(options: Options) -> None:
    """Run, time, write."""
    rows = []
    for command in options.commands:
        with tempfile.TemporaryDirectory() as folder:
            program, *arguments = shlex.split(command.format(folder=folder))
            start = perf_counter()
            script = Path(sys.executable).parent / program
            subprocess.run([script, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            rows.append({"command": command.replace("{folder}", "out"), "seconds": perf_counter() - start})
        print(f"{rows[-1]['seconds']:8.1f} s  {rows[-1]['command']}")
    print(write("commands", {"commands": rows}, options.results))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
