"""How cost grows with the number of tasks K, of parameters d and of paths N; how memory does with steps and paths.

    python benchmarks/growth.py

Exponents are fitted to the upper half of the sizes, where the constant cost of a call no longer hides them; the figures
show every size. Memory is the peak of a fresh process for each point.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from machine import RESULTS, device_slug
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from outcome import Goal, Outcome, Table, seconds
from peers.dual_problem import random_gradients
from peers.process import LEARNING_RATE, WEIGHTS, ornstein_uhlenbeck
from power_law import PowerLaw
from rich.console import Console
from rich.progress import Progress
from timing import Timing, compare

import optimizers
from sde_mtl import AdditiveNoise, LinearSDE, Quadratic, Recursion, aggregator, simulate
from sde_mtl.figures.style import COLOURS, GREY, canvas, save
from sde_mtl.simulation.dynamics import Dynamics

MEBIBYTE = 1 << 20
ALLOWED = 4.0
"""MiB that memory may vary by."""
RHO = 0.5
SIMULATED_STEPS = 100


@dataclass(frozen=True)
class Options:
    """Measure growth."""

    tasks: tuple[int, ...] = (2, 3, 4, 6, 8, 12, 16, 24, 32)
    parameters: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000)
    paths: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 300_000, 1_000_000)
    memory_steps: tuple[int, ...] = (10, 100, 1_000)
    memory_paths: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    rounds: int = 5
    budget_seconds: float = 15.0
    """Of timing each series; three rounds at least."""
    results: Path | None = None
    """Folder of the result and the figures."""
    quick: bool = False
    """A smoke test: small sizes."""


Series = Mapping[int, Callable[[], object]]


def of_tasks(sizes: tuple[int, ...]) -> dict[str, Series]:
    """One solve, and one of a batch."""
    generator = np.random.default_rng(0)

    def single(tasks: int) -> Callable[[], object]:
        G = torch.from_numpy(random_gradients(tasks, generator))
        M = optimizers.gramian(G)
        return lambda: optimizers.solve_dual(M, RHO)

    def batch(tasks: int) -> Callable[[], object]:
        G = torch.from_numpy(np.stack([random_gradients(tasks, generator) for _ in range(256)]))
        M = optimizers.gramian(G)
        return lambda: optimizers.came_grad_coefficients(M)

    return {"one solve": {k: single(k) for k in sizes}, "256 directions": {k: batch(k) for k in sizes}}


def of_parameters(sizes: tuple[int, ...]) -> dict[str, Series]:
    """From float32 gradients to u."""

    def direction(G: torch.Tensor) -> torch.Tensor:
        beta = optimizers.solve_dual(optimizers.gramian(G), RHO).multipliers
        return (1.0 / len(G) + beta).to(G.dtype) @ G

    found: dict[str, Series] = {}
    for tasks in (2, 4):
        G = torch.randn(tasks, max(sizes), generator=torch.Generator().manual_seed(0))
        parts = {d: G[:, :d].contiguous() for d in sizes}
        found[f"K = {tasks}"] = {d: partial(direction, part) for d, part in parts.items()}
    return found


def of_paths(sizes: tuple[int, ...]) -> dict[str, Series]:
    """Simulations in the plane."""
    process = ornstein_uhlenbeck(2, diagonal=False)
    linear = LinearSDE(process.problem, process.noise, WEIGHTS, LEARNING_RATE)
    problem = Quadratic([[[1.0, 0.3], [0.3, 2.0]], [[1.5, -0.2], [-0.2, 0.6]]], [[1.0, 0.0], [-1.0, 0.5]])
    noise = AdditiveNoise.correlated([1.0, 0.5], correlation=-0.6, dimension=2)
    came = Recursion(problem, noise, aggregator("came-grad"), WEIGHTS, LEARNING_RATE)
    kinds: dict[str, Dynamics] = {"linear SDE": linear, "recursion, CAME-Grad": came}
    return {
        name: {n: partial(simulate, kind, process.start, SIMULATED_STEPS, paths=n) for n in sizes}
        for name, kind in kinds.items()
    }


def timed(series: Series, options: Options, progress: Progress) -> dict[int, Timing]:
    """Every size in the same rounds."""
    times = compare(
        {str(size): call for size, call in series.items()},
        rounds=options.rounds, budget_seconds=options.budget_seconds, progress=progress,
    )  # fmt: skip
    return {int(size): timing for size, timing in times.items()}


def fit(sizes: Mapping[int, Timing]) -> PowerLaw:
    """Of the upper half."""
    chosen = upper_half(sizes)
    return PowerLaw.fit(chosen, [sizes[size].median for size in chosen])


def upper_half(sizes: Iterable[int]) -> list[int]:
    """The larger half of the sizes, at least three."""
    ordered = sorted(sizes)
    return ordered[-max(3, (len(ordered) + 1) // 2) :]


def memory(paths: int, steps: int) -> float:
    """Peak of a fresh process above its warm-up, MiB."""
    command = [sys.executable, str(Path(__file__).with_name("peak_memory.py"))]
    done = subprocess.run(
        [*command, "--paths", str(paths), "--steps", str(steps)], capture_output=True, text=True, check=True
    )
    return int(done.stdout) / MEBIBYTE


def main(options: Options) -> None:
    """Measure, draw, write."""
    if options.quick:
        options = replace(
            options, tasks=(2, 3, 4), parameters=(100, 1000, 10_000), paths=(10, 100, 1000), memory_steps=(2, 4),
            memory_paths=(3000, 6000), rounds=3, budget_seconds=1.0,
        )  # fmt: skip
    console = Console()
    found: dict[str, dict[str, dict[int, Timing]]] = {}
    builders = {
        "tasks K": (of_tasks, options.tasks),
        "parameters d": (of_parameters, options.parameters),
        "paths N": (of_paths, options.paths),
    }
    with Progress(console=console, transient=True) as progress:
        for axis, (build, sizes) in progress.track(builders.items(), description="cost"):
            found[axis] = {name: timed(series, options, progress) for name, series in build(sizes).items()}
        by_steps = {n: memory(4096, n) for n in progress.track(options.memory_steps, description="memory by steps")}
        by_paths = {n: memory(n, 20) for n in progress.track(options.memory_paths, description="memory by paths")}
    laws = {axis: {name: fit(times) for name, times in series.items()} for axis, series in found.items()}
    goals = [
        Goal("6", f"cost against {axis}, {name}: exponent", None, law.exponent, note=f"{law} (SE), upper half of sizes")
        for axis, series in laws.items()
        for name, law in series.items()
    ]
    for what, points in (("steps", by_steps), ("paths", by_paths)):
        spread = max(points.values()) - min(points.values())
        note = ", ".join(f"{n:,} {what}: {value:.1f} MiB" for n, value in points.items())
        claim = f"peak memory of a simulation over the number of {what}, MiB between least and most"
        goals.append(Goal("6", claim, ALLOWED, spread, least=False, note=note))
    tables = [
        Table(f"Cost against {axis}", [axis, *series],
              [[f"{size:,}", *(seconds(times[size].median) for times in series.values())]
               for size in next(iter(series.values()))])
        for axis, series in found.items()
    ]  # fmt: skip
    numbers: dict[str, Any] = {
        "memory": {"steps": by_steps, "paths": by_paths},
        **{axis: {name: {str(n): t.as_dict() for n, t in times.items()} for name, times in series.items()}
           for axis, series in found.items()},
    }  # fmt: skip
    folder = options.results or (None if options.quick else RESULTS)
    if folder is not None:
        for name, figure in (("growth", draw_cost(found, laws)), ("memory", draw_memory(by_steps, by_paths))):
            names = save(figure, folder, f"{name}-{device_slug()}")
            console.print(f"wrote {', '.join(names)} to {folder}")
    outcome = Outcome("growth", {**vars(options), "results": None}, ["numba", "numpy"], goals, tables, numbers)
    outcome.finish(console, options.results, options.quick)


def draw_cost(
    found: Mapping[str, Mapping[str, Mapping[int, Timing]]], laws: Mapping[str, Mapping[str, PowerLaw]]
) -> Figure:
    """Medians with quartiles, and the fitted power laws."""
    with canvas(9.6, 3.2, columns=len(found)) as (figure, axes):
        for axis, (label, series) in zip(axes, found.items(), strict=True):
            for colour, (name, times) in zip(COLOURS, series.items(), strict=False):
                sizes = np.array(list(times))
                middle = np.array([t.median for t in times.values()])
                bars = [middle - [t.lower for t in times.values()], [t.upper for t in times.values()] - middle]
                law = laws[label][name]
                axis.errorbar(sizes, middle, bars, fmt="o", ms=3.5, capsize=2, color=colour,
                              label=f"{name}: {law}")  # fmt: skip
                fitted = upper_half(times)
                axis.plot(fitted, [law.at(float(n)) for n in fitted], color=colour, lw=1)
            _logarithmic(axis, label, "seconds")
            axis.legend(fontsize=7, title="exponent ± SE", title_fontsize=7)
        return figure


def draw_memory(by_steps: Mapping[int, float], by_paths: Mapping[int, float]) -> Figure:
    """Peak memory beside what keeping every path would take."""
    with canvas(6.4, 2.8, columns=2) as (figure, axes):
        for axis, (label, points) in zip(axes, (("steps", by_steps), ("paths", by_paths)), strict=True):
            axis.plot(
                list(points), list(points.values()), "o-", color=COLOURS[0], lw=1, ms=4, label="peak over warm-up"
            )
            if label == "paths":
                whole = [n * 16 * 8 / MEBIBYTE for n in points]
                axis.plot(list(points), whole, ":", color=GREY, lw=1, label="one float64 state of all paths")
            axis.set_ylim(0.0, max(ALLOWED, 1.05 * axis.get_ylim()[1]))
            axis.set_xscale("log")
            axis.set_xlabel(label)
            axis.set_ylabel("MiB")
            axis.legend(fontsize=7)
        return figure


def _logarithmic(axis: Axes, x: str, y: str) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    if x == "tasks K":
        axis.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(x)
    axis.set_ylabel(y)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
