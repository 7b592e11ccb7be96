"""Run every speed benchmark, one after the other and nothing beside them, and write one Markdown table of the goals.

    python benchmarks/run_all.py            # or: make bench
    python benchmarks/run_all.py --only dual_solve batched

A script that fails is named; the table is then of what the others found, now or earlier on this machine.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from machine import RESULTS, device_slug
from outcome import GOAL_COLUMNS, Goal, Table, seconds
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from optimizers.files import write_bytes

SCRIPTS = ("dual_solve", "batched", "euler_maruyama", "came_grad_paths", "training_step", "growth")


@dataclass(frozen=True)
class Options:
    """Run all speed benchmarks."""

    only: tuple[str, ...] = SCRIPTS
    """Which scripts."""
    results: Path = RESULTS
    """Folder of the results."""
    quick: bool = False
    """Smoke tests; their numbers mean nothing, so give --results too."""
    render: bool = False
    """Write the table of earlier results and run nothing."""


def render(folder: Path) -> Path:
    """Write ``speed-DEVICE.md`` from the JSON files of this device; its path.

    Raises:
        FileNotFoundError: if there are none.
    """
    device = device_slug()
    paths = [folder / f"speed-{name.replace('_', '-')}-{device}.json" for name in SCRIPTS]
    found: list[dict[str, Any]] = [json.loads(path.read_text()) for path in paths if path.exists()]
    if not found:
        raise FileNotFoundError(f"no results of {device} in {folder}; run the benchmarks first")
    goals = [Goal(**{k: v for k, v in goal.items() if k != "verdict"}) for part in found for goal in part["goals"]]
    goals.sort(key=lambda goal: goal.item)
    verdicts = [goal.verdict for goal in goals]
    machine = found[0]["machine"]
    packages = {name: version for part in found for name, version in part["packages"].items() if version}
    quick = any(part["options"].get("quick") for part in found)
    lines = [
        "# Speed, beside every peer in the same run",
        "",
        *(["**A smoke test: these numbers mean nothing.**", ""] if quick else []),
        f"{machine['processor']}, {machine['device']}, {machine['threads']} threads; Python {machine['python']}, torch "
        f"{machine['torch']}, {', '.join(f'{name} {version}' for name, version in sorted(packages.items()))}.",
        "",
        f"{verdicts.count('met')} goals met, {verdicts.count('NOT met')} not met, "
        f"{verdicts.count('not measured')} not measured. Times are medians over rounds in which all contestants take "
        "turns; a ratio is of medians. Written by `make bench`.",
        "",
        Table("Goals", GOAL_COLUMNS, [goal.cells() for goal in goals]).markdown(),
        *(Table(**table).markdown() for part in found for table in part["tables"]),
    ]
    path = folder / f"speed-{device}.md"
    write_bytes(path, "\n".join(lines).encode())
    return path


def main(options: Options) -> int:
    """Run, render; how many scripts failed."""
    console = Console()
    unknown = set(options.only) - set(SCRIPTS)
    if unknown:
        raise ValueError(f"unknown benchmarks {sorted(unknown)}; there are {', '.join(SCRIPTS)}")
    failed = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=0 if options.render else len(options.only))
        for name in () if options.render else options.only:
            progress.update(task, description=name)
            command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--results", str(options.results)]
            begun = time.perf_counter()
            done = subprocess.run(command + ["--quick"] * options.quick, capture_output=True, text=True, check=False)
            progress.advance(task)
            if done.returncode:
                failed.append(name)
                console.print(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}", markup=False, style="red")
            else:
                console.print(f"{name}: {seconds(time.perf_counter() - begun)}")
    console.print(f"wrote {render(options.results)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
