"""Many CAME-Grad directions at once: coefficients of whole batches of Gramians, directions a second.

    python benchmarks/batched.py

Peers have no batches and solve one Gramian after another; their rate is measured on a few and they stop after the
conflict-averse direction, which is CAME-Grad's first stage. A sample of the batch is solved again one by one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from outcome import Goal, Outcome, Table, number, seconds
from peers import load
from peers.dual_problem import DualProblem, Solver, in_turn
from rich.console import Console
from rich.progress import Progress
from timing import Timing, compare

import optimizers

OURS = "came_grad_coefficients, batched"
PEERS = ("dual_torchjd", "dual_slsqp", "dual_clarabel")
REQUIRED = {2: 2e7, 8: 1e6}
TASK_WEIGHTS = (1.0, 4.0, 1.0, 2.0, 1.0, 3.0, 1.0, 2.0)
CHECKED = 200
"""Problems of a batch that are solved again alone."""


@dataclass(frozen=True)
class Options:
    """Time batches."""

    tasks: tuple[int, ...] = (2, 3, 4, 8)
    batch: int = 1 << 20
    """Gramians at K = 2; fewer at larger K, so that all batches have the same number of entries."""
    rounds: int = 9
    seed: int = 0
    results: Path | None = None
    """Folder of the result."""
    quick: bool = False
    """A smoke test: small batches."""


@dataclass(frozen=True)
class Row:
    """One K: the batch's size, times of it and of single problems, and the largest difference between the two."""

    batch: int
    times: Mapping[str, Timing]
    difference: float

    def rate(self, name: str) -> float:
        """Directions a second."""
        return (self.batch if name == OURS else 1) / self.times[name].median


def measure(tasks: int, options: Options, peers: Mapping[str, Solver], progress: Progress) -> Row:
    """Time one K."""
    generator = torch.Generator().manual_seed(options.seed)
    batch = max(CHECKED, 4 * options.batch // tasks**2)
    lengths = 3.0 ** (2.0 * torch.rand(batch, tasks, 1, generator=generator, dtype=torch.float64) - 1.0)
    gradients = lengths * torch.randn(batch, tasks, 2 * tasks, generator=generator, dtype=torch.float64)
    gramians = optimizers.gramian(gradients)
    weights = torch.tensor(TASK_WEIGHTS[:tasks], dtype=torch.float64)
    calls: dict[str, Callable[[], object]] = {OURS: lambda: optimizers.came_grad_coefficients(gramians, weights)}
    few = [DualProblem(gramians[i].numpy(), gramians[i]) for i in range(8)]
    calls |= {name: in_turn(solve, few) for name, solve in peers.items()}
    times = compare(calls, rounds=options.rounds, progress=progress)
    together = optimizers.came_grad_coefficients(gramians, weights)
    alone = torch.stack([optimizers.came_grad_coefficients(M, weights) for M in gramians[:CHECKED]])
    relative = (together[:CHECKED] - alone).abs().amax(-1) / alone.abs().amax(-1)
    return Row(batch, times, float(relative.max()))


def main(options: Options) -> None:
    """Time, check, write."""
    if options.quick:
        options = replace(options, tasks=(2, 8), batch=1000, rounds=3)
    console = Console()
    modules = load(PEERS, console)
    rows: dict[int, Row] = {}
    with Progress(console=console, transient=True) as progress:
        for tasks in progress.track(options.tasks, description="tasks"):
            peers = {name: solve for module in modules.values() for name, solve in module.solvers(tasks, 0.5).items()}
            rows[tasks] = measure(tasks, options, peers, progress)
    names = list(next(iter(rows.values())).times)
    lines = [
        [name, *(f"{number(row.rate(name))}/s ({seconds(1 / row.rate(name))})" for row in rows.values())]
        for name in names
    ]
    columns = ["", *(f"K = {k}, batch of {row.batch:,}" for k, row in rows.items())]
    goals = []
    for tasks, row in rows.items():
        against = ", ".join(f"{n} {number(row.rate(OURS) / row.rate(n))}×" for n in names if n != OURS)
        note = f"single solves: ours is {against}" if against else ""
        claim = f"CAME-Grad directions a second, K = {tasks}"
        goals.append(Goal("2", claim, REQUIRED.get(tasks), row.rate(OURS), note=note))
    worst = float(np.max([row.difference for row in rows.values()]))
    goals.append(
        Goal("2", "batched against one by one, largest relative difference of coefficients", 1e-9, worst, least=False)
    )
    Outcome(
        "batched",
        {**vars(options), "results": None},
        [package for module in modules.values() for package in module.PACKAGES] + ["numba"],
        goals,
        [Table("CAME-Grad directions a second", columns, lines)],
        {str(k): {name: t.as_dict() for name, t in row.times.items()} for k, row in rows.items()},
    ).finish(console, options.results, options.quick)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
