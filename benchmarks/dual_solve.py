"""One solve of the conflict-averse dual: time beside every peer's, from Gramians and from gradients, and accuracy.

    python benchmarks/dual_solve.py
    python benchmarks/dual_solve.py --tasks 2 16 --rounds 25

All solve the same problems, ρ = c = 0.5 around the mean gradient, cycling through several a row, and all are judged by
how far their u is from optimal.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from outcome import Goal, Outcome, Table, number, seconds
from peers import load
from peers.dual_problem import Answer, DualProblem, Solver, dual_value, in_turn, random_gradients, shortfall
from rich.console import Console
from rich.progress import Progress
from timing import Timing, compare

import optimizers

RHO = 0.5
OURS = "optimizers.solve_dual"
PEERS = ("dual_torchjd", "dual_slsqp", "dual_cvxpy", "dual_clarabel")
SCALES = (1e-30, 1e-15, 1e-8, 1e-4, 1e-2, 1e2, 1e4, 1e8, 1e15, 1e30)
DEGENERATE: dict[str, tuple[list[list[float]], bool]] = {
    "a zero row": ([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], True),
    "g1 = −g2 and a third": ([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], True),
    "two equal rows": ([[1.0, 0.2], [1.0, 0.2], [-0.8, 0.5]], False),
    "nearly equal rows": ([[1.0, 0.0], [1.0, 1e-8], [-0.8, 0.5]], False),
}
"""Gradients, and whether the optimum is known to be 0 (a gradient or a combination of some vanishes)."""


@dataclass(frozen=True)
class Options:
    """Time and check one dual solve."""

    tasks: tuple[int, ...] = (2, 3, 4, 8, 16, 32)
    """Numbers of tasks K."""
    problems: int = 16
    """Gramians for each K."""
    rounds: int = 15
    """Of all contestants in turn."""
    seed: int = 0
    results: Path | None = None
    """Folder of the result."""
    quick: bool = False
    """A smoke test: few rounds, small sizes."""


def ours(tasks: int, rho: float) -> dict[str, Solver]:
    """u* = Gᵀ(1/K + β) from the multipliers β."""

    def solve(problem: DualProblem) -> Answer:
        found = optimizers.solve_dual(problem.tensor, rho)
        return lambda: 1.0 / tasks + found.multipliers.numpy()

    return {OURS: solve}


def solvers(tasks: int, modules: Mapping[str, Any]) -> dict[str, Solver]:
    """Every contestant for K tasks, ours first."""
    found = ours(tasks, RHO)
    for module in modules.values():
        found |= module.solvers(tasks, RHO)
    return found


def errors(contestants: Mapping[str, Solver], problem: DualProblem, optimum: float | None = None) -> dict[str, Any]:
    """Shortfall of each, or how it failed; ``optimum`` where it is known, else the best upper bound found."""
    answers: dict[str, Any] = {}
    for name, solve in contestants.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers[name] = np.asarray(solve(problem)(), np.float64)
        except Exception as error:
            answers[name] = f"raises {type(error).__name__}"
            continue
        if not np.isfinite(answers[name]).all():
            answers[name] = "not finite"
    M = problem.array
    numeric = [answer for answer in answers.values() if not isinstance(answer, str)]
    best = min((dual_value(M, answer, RHO) for answer in numeric), default=np.inf) if optimum is None else optimum
    return {name: a if isinstance(a, str) else shortfall(M, a, RHO, best) for name, a in answers.items()}


def worst(found: list[dict[str, Any]]) -> dict[str, Any]:
    """For each contestant its largest error, or its first failure."""
    return {
        name: next((e[name] for e in found if isinstance(e[name], str)), None) or max(e[name] for e in found)
        for name in found[0]
    }


def gradients_row(
    tasks: int, d: int, modules: Mapping[str, Any], options: Options, progress: Progress
) -> tuple[dict[str, Timing], dict[str, float]]:
    """Time from float32 gradients to u, of any length (ours has that of g_J), and the error of its direction."""
    generator = torch.Generator().manual_seed(options.seed)
    G = torch.randn(tasks, d, generator=generator)
    exact = G.double() @ G.double().T
    target = (1.0 / tasks + optimizers.solve_dual(exact, RHO).multipliers) @ G.double()

    def direct() -> torch.Tensor:
        return optimizers.came_grad(G, rho=RHO, kappa=1.0, nu=0.0).update

    weights = torch.full((tasks,), 1.0 / tasks)

    def floor() -> torch.Tensor:
        G @ G.T
        return weights @ G

    contestants: dict[str, Callable[[], torch.Tensor]] = {OURS: direct, "floor": floor}
    if "dual_torchjd" in modules:
        aggregate = modules["dual_torchjd"].aggregator(RHO)
        contestants["TorchJD"] = lambda: aggregate(G)
    if "dual_slsqp" in modules:
        (slsqp,) = modules["dual_slsqp"].solvers(tasks, RHO).values()

        def sequential() -> torch.Tensor:
            M = (G @ G.T).double()
            return torch.from_numpy(slsqp(DualProblem(M.numpy(), M))()).to(G.dtype) @ G

        contestants["SLSQP"] = sequential
    times = compare(contestants, rounds=options.rounds, progress=progress)
    target = target / target.norm()
    found = {name: contestant().double() for name, contestant in contestants.items() if name != "floor"}
    wrong = {name: float((u / u.norm() - target).norm()) for name, u in found.items()}
    return times, wrong


def main(options: Options) -> None:
    """Time, check, write."""
    if options.quick:
        options = replace(options, tasks=(2, 4), problems=2, rounds=3)
    console = Console()
    modules = load(PEERS, console)
    generator = np.random.default_rng(options.seed)
    times: dict[int, dict[str, Timing]] = {}
    gaps: dict[int, dict[str, Any]] = {}
    scaled: dict[float, dict[str, Any]] = {}
    sizes = ((2, 10_000), (3, 1000), (8, 10_000)) if options.quick else ((3, 1000), (2, 1_000_000), (8, 1_000_000))
    with Progress(console=console, transient=True) as progress:
        for tasks in progress.track(options.tasks, description="Gramians"):
            problems = [DualProblem.of(random_gradients(tasks, generator)) for _ in range(options.problems)]
            contestants = solvers(tasks, modules)
            gaps[tasks] = worst([errors(contestants, problem) for problem in problems])
            calls = {name: in_turn(solve, problems) for name, solve in contestants.items()}
            times[tasks] = compare(calls, rounds=options.rounds, progress=progress)
        contestants = solvers(3, modules)
        base = [random_gradients(3, generator) for _ in range(4)]
        for scale in progress.track(SCALES, description="scales"):
            scaled[scale] = worst([errors(contestants, DualProblem.of(scale * gradients)) for gradients in base])
        degenerate = {
            name: errors(contestants, DualProblem.of(np.array(rows)), 0.0 if zero else None)
            for name, (rows, zero) in DEGENERATE.items()
        }
        rows = {
            (tasks, d): gradients_row(tasks, d, modules, options, progress)
            for tasks, d in progress.track(sizes, description="gradients")
        }
    outcome = Outcome(
        "dual-solve",
        {**vars(options), "results": None},
        [package for module in modules.values() for package in module.PACKAGES] + ["numba", "numpy"],
        goals(times, gaps, scaled, degenerate, rows),
        [
            timing_table("From a Gramian, median time of one solve", {f"K = {k}": t for k, t in times.items()}),
            error_table("Error of u on well-posed problems, worst", {f"K = {k}": e for k, e in gaps.items()}),
            error_table("Error of u at scales of the gradients, K = 3", {f"{s:g}": e for s, e in scaled.items()}),
            error_table("Error of u on degenerate problems", degenerate),
            timing_table("From float32 gradients to u", {f"K = {k}, d = {d:,}": t for (k, d), (t, _) in rows.items()}),
            error_table(
                "Error of the direction of u from float32 gradients",
                {f"K = {k}, d = {d:,}": e for (k, d), (_, e) in rows.items()},
            ),
        ],
        {
            "gramians": {k: {name: t.as_dict() for name, t in row.items()} for k, row in times.items()},
            "gradients": {
                f"{k} {d}": {name: t.as_dict() for name, t in row.items()} for (k, d), (row, _) in rows.items()
            },
        },
    )
    outcome.finish(console, options.results, options.quick)


def goals(
    times: Mapping[int, Mapping[str, Timing]],
    gaps: Mapping[int, Mapping[str, Any]],
    scaled: Mapping[float, Mapping[str, Any]],
    degenerate: Mapping[str, Mapping[str, Any]],
    rows: Mapping[tuple[int, int], tuple[Mapping[str, Timing], Mapping[str, float]]],
) -> list[Goal]:
    """Item 1."""
    found = []
    for peer, required in (("TorchJD", 500.0), ("Clarabel", 50.0), ("Clarabel, kept", None)):
        ratios = {k: row[peer].median / row[OURS].median for k, row in times.items() if peer in row}
        listed = ", ".join(f"K = {k}: {number(r)}" for k, r in ratios.items())
        least = min(ratios.values(), default=None)
        found.append(Goal("1", f"one solve, times faster than {peer}, least over K", required, least, note=listed))
    checked: dict[str, Mapping[Any, Mapping[str, Any]]] = {
        "well-posed": gaps,
        "scales 1e-30 … 1e30": scaled,
        "zero rows, opposite and equal gradients": degenerate,
    }
    for name, table in checked.items():
        of_ours = [row[OURS] for row in table.values()]
        value = None if any(isinstance(e, str) for e in of_ours) else max(of_ours)
        peers = {peer: worst([dict(row) for row in table.values()])[peer] for peer in next(iter(table.values()))}
        told = "; ".join(f"{peer} {_shown(error)}" for peer, error in peers.items() if peer != OURS)
        found.append(Goal("1", f"error of u, {name}", 1e-14, value, least=False, note=f"peers' worst: {told}"))
    for (tasks, d), (row, _) in rows.items():
        name = f"float32 gradients to u, K = {tasks}, d = {d:,}"
        if d <= 1000:
            for peer, required in (("TorchJD", 100.0), ("SLSQP", 40.0)):
                measured = row[peer].median / row[OURS].median if peer in row else None
                found.append(Goal("1", f"{name}, times faster than {peer}", required, measured))
        else:
            floor = row[OURS].median / row["floor"].median
            found.append(Goal("1", f"{name}, time over one Gramian and one weighted sum", 1.1, floor, least=False))
    return found


def timing_table(title: str, columns: Mapping[str, Mapping[str, Timing]]) -> Table:
    """Contestants by problems; median, and its ratio to ours."""
    names = dict.fromkeys(name for row in columns.values() for name in row)

    def cell(row: Mapping[str, Timing], name: str) -> str:
        if name not in row:
            return ""
        return f"{seconds(row[name].median)} ({number(row[name].median / row[OURS].median)}×)"

    return Table(title, ["", *columns], [[name, *(cell(row, name) for row in columns.values())] for name in names])


def error_table(title: str, columns: Mapping[str, Mapping[str, Any]]) -> Table:
    """Contestants by problems; error or failure."""
    names = next(iter(columns.values()))
    rows = [[name, *(_shown(row[name]) if name in row else "" for row in columns.values())] for name in names]
    return Table(title, ["", *columns], rows)


def _shown(error: Any) -> str:
    return error if isinstance(error, str) else f"{error:.1e}"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
