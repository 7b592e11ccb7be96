"""The headline: the exact training loop with CAME-Grad on many paths, which is one dual solve a path and step.

    python benchmarks/came_grad_paths.py

Beside it the time that the same solves would take with each peer, measured on a few of this simulation's own Gramians
and extrapolated. The moments are checked against an independent loop over batches in torch, with other noise.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from outcome import Goal, Outcome, Table, number, seconds
from peers import load
from peers.dual_problem import DualProblem, in_turn
from rich.console import Console
from rich.progress import Progress
from timing import compare

import optimizers
from sde_mtl import AdditiveNoise, Ensemble, Quadratic, Recursion, aggregator, simulate

PEERS = ("dual_torchjd", "dual_slsqp", "dual_clarabel")
STANDARD_ERRORS = 5.0
WEIGHTS, LEARNING_RATE, START = (1.0, 2.0), 0.01, (3.0, -2.0)
OURS = {"float64": "sde_mtl.simulate, float64", "float32": "sde_mtl.simulate, float32"}
LOOP = "torch loop over came_grad_coefficients"


@dataclass(frozen=True)
class Options:
    """Time the recursion with CAME-Grad."""

    paths: int = 10_000
    steps: int = 1000
    check_paths: int = 2000
    """Of the independent loop that the moments are checked against."""
    rounds: int = 5
    budget_seconds: float = 30.0
    """Of timing; three rounds at least."""
    results: Path | None = None
    """Folder of the result."""
    quick: bool = False
    """A smoke test: few paths and steps."""


def training() -> Recursion:
    """CAME-Grad as published, on two conflicting quadratics with anticorrelated gradient noise."""
    problem = Quadratic([[[1.0, 0.3], [0.3, 2.0]], [[1.5, -0.2], [-0.2, 0.6]]], [[1.0, 0.0], [-1.0, 0.5]])
    noise = AdditiveNoise.correlated([1.0, 0.5], correlation=-0.6, dimension=2)
    return Recursion(problem, noise, aggregator("came-grad"), WEIGHTS, LEARNING_RATE)


def observed(loop: Recursion, theta: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Gradients with torch's own noise, (n, K, d)."""
    noise = loop.noise
    if not isinstance(noise, AdditiveNoise):
        raise TypeError(f"expected additive noise, got {type(noise).__name__}")
    z = torch.randn(len(theta), len(noise.factor), generator=generator, dtype=theta.dtype)
    return loop.problem.gradients(theta) + (z @ noise.factor.T).reshape(-1, noise.tasks, noise.dimension)


def plain_loop(loop: Recursion, paths: int, steps: int, seed: int) -> torch.Tensor:
    """The same training without the engine: (paths, d) ends."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    theta = torch.tensor(START, dtype=torch.float64).expand(paths, -1)
    for _ in range(steps):
        G = observed(loop, theta, generator)
        c = optimizers.came_grad_coefficients(optimizers.gramian(G), weights)
        theta = theta - LEARNING_RATE * (c[:, None] @ G)[:, 0]
    return theta


def standard_errors(ensemble: Ensemble, ends: torch.Tensor) -> float:
    """Largest difference of a mean or variance between two independent samples, in standard errors."""
    n, m = ensemble.paths, len(ends)
    variance = ensemble.covariance[-1].diagonal()
    of_mean = (ensemble.mean[-1] - ends.mean(0)).abs() / (variance * (1 / n + 1 / m)).sqrt()
    centred = (ends - ends.mean(0)) ** 2
    fourth = (centred**2).mean(0) - centred.mean(0) ** 2
    of_variance = (variance - centred.sum(0) / (m - 1)).abs() / (fourth * (1 / n + 1 / m)).sqrt()
    return float(torch.cat([of_mean, of_variance]).max())


def main(options: Options) -> None:
    """Time, check, write."""
    if options.quick:
        options = replace(options, paths=200, steps=20, check_paths=200, rounds=3, budget_seconds=2.0)
    console = Console()
    modules = load(PEERS, console)
    loop = training()
    last: dict[str, Ensemble] = {}
    calls: dict[str, Callable[[], object]] = {}
    for precision, name in OURS.items():

        def run(precision: str = precision) -> None:
            dtype = getattr(torch, precision)
            last[precision] = simulate(loop, START, options.steps, paths=options.paths, dtype=dtype)

        calls[name] = run
    sample_steps = max(1, options.steps // 50)
    calls[LOOP] = lambda: plain_loop(loop, options.paths, sample_steps, 0)
    G = observed(loop, plain_loop(loop, 16, min(options.steps, 100), 1), torch.Generator().manual_seed(2))
    few = [DualProblem(M.numpy(), M) for M in optimizers.gramian(G)]
    peers = {name: solve for module in modules.values() for name, solve in module.solvers(2, 0.5).items()}
    calls |= {name: in_turn(solve, few) for name, solve in peers.items()}
    with Progress(console=console, transient=True) as progress:
        times = compare(
            calls, rounds=options.rounds, budget_seconds=options.budget_seconds, sample_seconds=0.02, progress=progress
        )
        ends = plain_loop(loop, options.check_paths, options.steps, 3)
    solves = options.paths * options.steps
    whole: dict[str, float] = {name: times[name].median for name in OURS.values()}
    whole[LOOP] = times[LOOP].median * options.steps / sample_steps
    whole |= {name: times[name].median * solves for name in peers}
    best = min(whole[name] for name in OURS.values())
    notes = {name: "measured whole" for name in OURS.values()}
    notes |= {LOOP: f"extrapolated from {sample_steps} steps"}
    notes |= {name: f"solves alone, extrapolated from {times[name].rounds * times[name].calls}" for name in peers}
    ordered = sorted(whole, key=lambda name: whole[name])
    lines = [[name, seconds(whole[name]), f"{number(whole[name] / best)}×", notes[name]] for name in ordered]
    first = ", ".join(f"{p} {seconds(max(times[n].first - times[n].median, 0.0))}" for p, n in OURS.items())
    goals = [Goal("4", f"CAME-Grad's recursion, {solves:,.0e} solves, seconds", None, whole[OURS["float64"]],
                  note=f"first run, extra: {first}")]  # fmt: skip
    if "TorchJD" in whole:
        goals.append(Goal("4", "times faster than TorchJD's solves alone would be", None,
                          whole["TorchJD"] / whole[OURS["float64"]], note=notes["TorchJD"]))  # fmt: skip
    for precision, ensemble in last.items():
        claim = f"moments against an independent torch loop, {precision}, standard errors"
        goals.append(Goal("4", claim, STANDARD_ERRORS, standard_errors(ensemble, ends), least=False))
    numbers: dict[str, Any] = {"whole": whole, "timings": {name: t.as_dict() for name, t in times.items()}}
    title = f"CAME-Grad's recursion, {options.paths:,} paths × {options.steps:,} steps, K = 2"
    Outcome(
        "came-grad-paths",
        {**vars(options), "results": None},
        [package for module in modules.values() for package in module.PACKAGES] + ["numba"],
        goals,
        [Table(title, ["", "time", "over the best", ""], lines)],
        numbers,
    ).finish(console, options.results, options.quick)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
