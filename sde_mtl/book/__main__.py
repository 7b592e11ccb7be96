"""Make a kept result of the book anew: ``python -m sde_mtl.book phases FILE``, or ``… excerpt LOG``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from sde_mtl.book.excerpts import excerpt
from sde_mtl.book.phases import write_phases
from sde_mtl.gradient_logs import read_log


def parser() -> argparse.ArgumentParser:
    """A subcommand for each kind of result."""
    top = argparse.ArgumentParser(prog="python -m sde_mtl.book", description="Make a kept result of the book anew.")
    commands = top.add_subparsers(dest="command", required=True)
    phases = commands.add_parser("phases", help="write the phase diagrams of T6 and their provenance")
    phases.add_argument("path", type=Path, help="JSON file to write")
    phases.add_argument("--steps", type=int, default=6000, help="of training, each resting point")
    log = commands.add_parser("excerpt", help="print losses and Gramians of a gradient log as JSON")
    log.add_argument("folder", type=Path, help="of the log")
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand."""
    chosen = parser().parse_args(arguments)
    if chosen.command == "phases":
        write_phases(chosen.path, steps=chosen.steps)
    else:
        print(json.dumps(excerpt(read_log(chosen.folder))))


if __name__ == "__main__":
    main()
