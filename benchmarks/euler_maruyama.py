"""Euler–Maruyama for the SDE of linear scalarization: many paths, only terminal moments kept, beside every peer.

    python benchmarks/euler_maruyama.py
    python benchmarks/euler_maruyama.py --dimensions 2 --precisions float32

Every contestant simulates the same Ornstein–Uhlenbeck process, starting at one point, with the same time step; its
terminal mean and covariance must lie within k standard errors of the closed form of the scheme, or it does not count.
Slow peers run fewer steps or fewer paths, whichever costs them the same a path-step as a whole run; their rate is that
of the sample, which the table says. Compilation is reported apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count, product
from pathlib import Path
from typing import Any

import torch
import tyro
from outcome import Goal, Outcome, Table, number, seconds
from peers import load
from peers.process import LEARNING_RATE, WEIGHTS, Contestant, Moments, Precision, Process, ornstein_uhlenbeck
from peers.sde_torch import normals_alone
from rich.console import Console
from rich.progress import Progress
from timing import Timing, compare

from sde_mtl import LinearSDE, simulate

OURS = "sde_mtl.simulate"
NORMALS = "torch's normals alone"
PEERS = ("sde_torchsde", "sde_diffrax", "sde_sdeint", "sde_torch", "sde_numpy")
STANDARD_ERRORS = 6.0
"""k: at d = 16 some 150 moments are compared for each of 9 contestants in 8 configurations."""
REQUIRED = {
    2: {"torchsde": 20.0, "torchsde, dt-aligned": 8.0, "diffrax": 5.0},
    16: {"torchsde": 10.0, "torchsde, dt-aligned": 5.0, "diffrax": 3.0},
}


@dataclass(frozen=True)
class Options:
    """Time and check Euler–Maruyama."""

    paths: int = 10_000
    steps: int = 1000
    dimensions: tuple[int, ...] = (2, 16)
    precisions: tuple[Precision, ...] = ("float32", "float64")
    noises: tuple[str, ...] = ("diagonal", "full")
    rounds: int = 7
    budget_seconds: float = 12.0
    """Of timing each configuration; three rounds at least."""
    results: Path | None = None
    """Folder of the result."""
    quick: bool = False
    """A smoke test: few paths and steps."""


@dataclass(frozen=True)
class Measured:
    """One contestant in one configuration."""

    timing: Timing
    paths: int
    steps: int
    errors: float | None
    """Largest deviation of a moment in standard errors; None for what simulates nothing."""

    @property
    def rate(self) -> float:
        """Path-steps a second."""
        return self.paths * self.steps / self.timing.median

    @property
    def right(self) -> bool:
        return self.errors is None or self.errors <= STANDARD_ERRORS

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.timing.as_dict(), "paths": self.paths, "steps": self.steps, "rate": self.rate,
            "standard errors": self.errors,
        }  # fmt: skip


Configuration = tuple[int, Precision, str]


def ours(process: Process, paths: int, steps: int, precision: Precision) -> Callable[[int], Moments]:
    """Terminal moments from :func:`sde_mtl.simulate`."""
    dynamics = LinearSDE(process.problem, process.noise, WEIGHTS, LEARNING_RATE)

    def run(seed: int) -> Moments:
        found = simulate(dynamics, process.start, steps, paths=paths, seed=seed, dtype=getattr(torch, precision))
        return Moments(found.mean[-1].numpy(), found.covariance[-1].numpy(), found.paths, steps)

    return run


def theirs(
    contestant: Contestant, process: Process, paths: int, steps: int, precision: Precision
) -> Callable[[int], Moments]:
    """Terminal moments from the ends that a peer gives."""
    run = contestant.build(process, paths, steps, precision)
    return lambda seed: Moments.of(run(seed), steps)


def measure(
    process: Process, precision: Precision, peers: Mapping[str, Contestant], options: Options, progress: Progress
) -> dict[str, Measured]:
    """Time all in the same rounds; each run has another seed, and the moments of the last are checked."""
    last: dict[str, Moments] = {}
    sizes = {OURS: (options.paths, options.steps), NORMALS: (options.paths, options.steps)}
    calls: dict[str, Callable[[], object]] = {}

    def add(name: str, run: Callable[[int], Moments]) -> None:
        seeds = count()

        def call() -> None:
            last[name] = run(next(seeds))

        calls[name] = call

    add(OURS, ours(process, options.paths, options.steps, precision))
    normals = normals_alone(process, options.paths, options.steps, precision)
    calls[NORMALS] = lambda: normals(0)
    for name, contestant in peers.items():
        paths = min(contestant.paths or options.paths, options.paths)
        steps = min(contestant.steps or options.steps, options.steps)
        sizes[name] = paths, steps
        add(name, theirs(contestant, process, paths, steps, precision))
    times = compare(calls, rounds=options.rounds, budget_seconds=options.budget_seconds, progress=progress)
    return {
        name: Measured(times[name], *sizes[name], last[name].standard_errors(process) if name in last else None)
        for name in calls
    }


def main(options: Options) -> None:
    """Time, check, write."""
    if options.quick:
        options = replace(options, paths=200, steps=20, dimensions=(2,), noises=("full",), rounds=3, budget_seconds=2.0)
    console = Console()
    modules = load(PEERS, console)
    peers = {name: contestant for module in modules.values() for name, contestant in module.CONTESTANTS.items()}
    found: dict[Configuration, dict[str, Measured]] = {}
    configurations = list(product(options.dimensions, options.precisions, options.noises))
    with Progress(console=console, transient=True) as progress:
        for d, precision, noise in progress.track(configurations, description="configurations"):
            process = ornstein_uhlenbeck(d, diagonal=noise == "diagonal")
            found[d, precision, noise] = measure(process, precision, peers, options, progress)
    outcome = Outcome(
        "euler-maruyama",
        {**vars(options), "results": None},
        [package for module in modules.values() for package in module.PACKAGES] + ["numba"],
        [goal for d in options.dimensions for goal in goals(d, found)],
        [table(key, row, options) for key, row in found.items()],
        {" ".join(map(str, key)): {name: m.as_dict() for name, m in row.items()} for key, row in found.items()},
    )
    outcome.finish(console, options.results, options.quick)


def goals(d: int, found: Mapping[Configuration, Mapping[str, Measured]]) -> list[Goal]:
    """Item 3 at one dimension: the least ratio over precisions and kinds of noise, of those who are right."""
    rows = {f"{precision} {noise}": row for (size, precision, noise), row in found.items() if size == d}
    result = []
    for peer, required in REQUIRED.get(d, {}).items():
        ratios = {}
        for key, row in rows.items():
            rates = [m.rate for name, m in row.items() if _is(name, peer) and m.right]
            if rates and row[OURS].right:
                ratios[key] = row[OURS].rate / max(rates)
        listed = ", ".join(f"{key} {number(ratio)}×" for key, ratio in ratios.items())
        best = "the best of diffrax" if peer == "diffrax" else peer
        claim = f"Euler–Maruyama, d = {d}, times faster than {best}, least over configurations"
        result.append(Goal("3", claim, required, min(ratios.values(), default=None), note=listed))
    worst = max((row[OURS].errors or 0.0 for row in rows.values()), default=None)
    claim = f"Euler–Maruyama, d = {d}, largest deviation of our moments, standard errors"
    wrong = sorted({name for row in rows.values() for name, m in row.items() if not m.right and name != OURS})
    note = f"these peers' moments are wrong somewhere: {', '.join(wrong)}" if wrong else "every peer's are within too"
    return [*result, Goal("3", claim, STANDARD_ERRORS, worst, least=False, note=note)]


def _is(name: str, peer: str) -> bool:
    return name.startswith("diffrax") if peer == "diffrax" else name == peer


def table(configuration: Configuration, row: Mapping[str, Measured], options: Options) -> Table:
    """Contestants by decreasing rate."""
    d, precision, noise = configuration
    lines = []
    whole = options.paths * options.steps
    for name, m in sorted(row.items(), key=lambda item: -item[1].rate):
        sample = "" if m.paths * m.steps == whole else f"extrapolated from {m.paths:,} × {m.steps:,}"
        errors = "" if m.errors is None else f"{m.errors:.1f}" + ("" if m.right else " WRONG")
        lines.append([
            name, number(m.rate / 1e6), f"{number(row[OURS].rate / m.rate)}×", seconds(whole / m.rate), sample,
            seconds(max(m.timing.first - m.timing.median, 0.0)), errors,
        ])  # fmt: skip
    heading = ["", "million path-steps/s", "ours is", "whole run", "", "first run, extra", "moments, SE"]
    return Table(f"d = {d}, {precision}, {noise} noise, {options.paths:,} × {options.steps:,}", heading, lines)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
