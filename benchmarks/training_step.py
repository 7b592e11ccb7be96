"""One training step of three tasks with 10 million shared parameters: time and memory over K bare backward passes.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --problems "many small" --rounds 25 --device cuda

Only backwards are timed, from the losses to ``.grad``; the forward pass, which is the same for all, is reported apart.
Memory is the most that forward and backward pass together had allocated at a time, as the allocator reports it.
"""

import gc
import statistics
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from outcome import Goal, Outcome, Table, number, seconds
from peers import load
from peers.step_problem import PROBLEMS, TASKS, Backward, Problem
from rich.console import Console
from rich.progress import Progress
from timing import Timing
from torch.profiler import ProfilerActivity, profile

from optimizers import CAMEGrad

OURS = "CAMEGrad"
REFRESH = 10
REFRESHED = f"CAMEGrad, refresh_every={REFRESH}"
FORWARD = "forward pass"
FLOOR, PLAIN, HAND, FLATTENING = (
    "K backward passes", "one summed backward", "loop over lists, in place", "flattening loop"
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Time and weigh one training step."""

    problems: tuple[Literal["few large", "many small"], ...] = ("few large", "many small")
    """Shapes of the shared parameters."""
    rounds: int = 7
    """Of all contestants in turn."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    results: Path | None = None
    """Folder of the result."""
    quick: bool = False
    """A smoke test: few rounds, small models."""


@dataclass(frozen=True)
class Contestant:
    """Attributes: the model it trains, its backward, and how many calls make a sample, of which the mean is taken."""

    problem: Problem
    backward: Backward
    calls: int = 1


def contestants(problem: Problem, modules: Mapping[str, Any]) -> dict[str, Contestant]:
    found = {
        name: Contestant(problem, of) for module in modules.values() for name, of in module.contestants(problem).items()
    }
    for name, every in ((OURS, 1), (REFRESHED, REFRESH)):
        sgd = torch.optim.SGD(problem.parameters, lr=0.0)
        optimizer = CAMEGrad(sgd, shared=problem.shared, refresh_every=every)
        found[name] = Contestant(problem, lambda forward, o=optimizer: o.backward(forward.losses), every)
    if "step_torchjd" in modules:
        own, engines = modules["step_torchjd"].autogram(problem)
        found |= {name: Contestant(own, of) for name, of in engines.items()}
    return found


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(entered: Mapping[str, Contestant], rounds: int, device: str, progress: Progress) -> dict[str, Timing]:
    """Every contestant in every round, and the forward pass in between; the first round only warms up.

    Each takes one step before its clock starts, so that it finds memory as it leaves it itself.
    """
    samples: dict[str, list[float]] = {FORWARD: [], **{name: [] for name in entered}}
    first: dict[str, float] = {}
    gc.disable()
    for number_ in progress.track(range(rounds + 1), description="timing"):
        for name, contestant in entered.items():
            spent, forwards = 0.0, 0.0
            contestant.backward(contestant.problem.forward())
            for _ in range(contestant.calls):
                synchronize(device)
                begun = time.perf_counter()
                forward = contestant.problem.forward()
                synchronize(device)
                between = time.perf_counter()
                contestant.backward(forward)
                synchronize(device)
                spent += (time.perf_counter() - between) / contestant.calls
                forwards += (between - begun) / contestant.calls
                del forward
            if number_ == 0:
                first[name] = spent
                first.setdefault(FORWARD, forwards)
                continue
            samples[name].append(spent)
            if name == FLOOR:
                samples[FORWARD].append(forwards)
        gc.collect()
    gc.enable()
    timings = {}
    for name, values in samples.items():
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        calls = entered[name].calls if name in entered else 1
        timings[name] = Timing(median, lower, upper, len(values), calls, first[name])
    return timings


def peak(contestant: Contestant, device: str) -> int:
    """Most bytes that a forward and a backward pass had allocated at a time beyond those before them."""
    contestant.problem.clear()
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contestant.backward(contestant.problem.forward())
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        contestant.backward(contestant.problem.forward())
    live = most = 0
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def paired(times: Mapping[str, Timing], name: str, other: str, *, forward: bool = False) -> float | None:
    """Ratio of medians, with the forward pass added to both or not."""
    if name not in times or other not in times:
        return None
    more = times[FORWARD].median if forward else 0.0
    return (times[name].median + more) / (times[other].median + more)


def goals(problem: str, times: Mapping[str, Timing], peaks: Mapping[str, int]) -> list[Goal]:
    """Item 5."""
    least = (TASKS + REFRESH - 1) / REFRESH
    return [
        Goal("5", f"{problem}: backward over {TASKS} bare ones", 1.05, paired(times, OURS, FLOOR), least=False,
             note=f"with the forward pass in both: {number(paired(times, OURS, FLOOR, forward=True) or 0)}"),
        Goal("5", f"{problem}: peak memory over that of the loop in place", 1.0, peaks[OURS] / peaks[HAND],
             least=False, note="the loop writes into gradients, which may share memory in some models"),
        Goal("5", f"{problem}: a step with refresh_every={REFRESH} over a plain one", 1.2,
             paired(times, REFRESHED, PLAIN, forward=True), least=False,
             note=f"backward alone: {number(paired(times, REFRESHED, PLAIN) or 0)}, and never below about {least:g}"),
    ]  # fmt: skip


def table(problem: str, entries: int, times: Mapping[str, Timing], peaks: Mapping[str, int]) -> Table:
    rows = []
    for name, timing in sorted(times.items(), key=lambda item: item[1].median):
        memory = f"{peaks[name] / 2**20:,.1f} MiB" if name in peaks else ""
        over = "" if name == FORWARD else f"{timing.median / times[FLOOR].median:.3f}"
        spread = f"{seconds(timing.lower)} … {seconds(timing.upper)}"
        rows.append([name, seconds(timing.median), spread, over, memory])
    title = f"{problem}: {entries:,} shared parameters"
    return Table(title, ["", "median", "quartiles", "over the floor", "peak memory"], rows)


def main(options: Options) -> None:
    """Time, weigh, write."""
    console = Console()
    modules = load(("step_loops", "step_torchjd"), console)
    rounds = 3 if options.quick else options.rounds
    found, tables, numbers = [], [], {}
    with Progress(console=console, transient=True) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchJD's, of torch's batching rules
        for name in options.problems:
            problem = PROBLEMS[name](options.device, quick=options.quick)
            entered = contestants(problem, modules)
            times = timed(entered, rounds, options.device, progress)
            peaks = {n: peak(contestant, options.device) for n, contestant in entered.items()}
            found += goals(name, times, peaks)
            tables.append(table(name, problem.entries, times, peaks))
            numbers[name] = {
                "shared parameters": problem.entries,
                "tensors": len(problem.shared),
                "seconds": {n: t.as_dict() for n, t in times.items()},
                "peak bytes": peaks,
            }
    packages = [package for module in modules.values() for package in module.PACKAGES] + ["numba"]
    shown = {**vars(options), "results": None}
    Outcome("training-step", shown, packages, found, tables, numbers).finish(console, options.results, options.quick)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
