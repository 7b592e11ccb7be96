"""Time contestants in turn: one round is one sample of each, so that a busy moment falls on all of them alike."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.progress import Progress

Contestant = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median, lower, upper: median and quartiles over the rounds.
        rounds: samples taken, each the mean of ``calls`` calls.
        first: the very first call, with imports, compilation and set-up.
    """

    median: float
    lower: float
    upper: float
    rounds: int
    calls: int
    first: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    contestants: Mapping[str, Contestant],
    *,
    rounds: int = 9,
    sample_seconds: float = 2e-3,
    budget_seconds: float = math.inf,
    progress: Progress | None = None,
) -> dict[str, Timing]:
    """Time every contestant in the same rounds, warmed up.

    Args:
        contestants: what to call, by name.
        rounds: how many, at least 3.
        sample_seconds: a faster contestant is called several times a sample to fill them.
        budget_seconds: no round beyond the third begins after these.
        progress: a running display.

    Raises:
        ValueError: for fewer than three rounds, whose quartiles say nothing.
    """
    if rounds < 3:
        raise ValueError(f"rounds = {rounds} must be at least 3")
    task = progress.add_task("timing", total=(rounds + 1) * len(contestants)) if progress else None

    def advance() -> None:
        if progress and task is not None:
            progress.advance(task)

    first: dict[str, float] = {}
    for name, call in contestants.items():
        first[name] = _seconds(call, 1)
        advance()
    begun = time.perf_counter()
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    calls: dict[str, int] = {}
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - begun > budget_seconds:
            break
        for name, call in contestants.items():
            if name not in calls:
                once = _seconds(call, 1)
                calls[name] = max(1, math.ceil(sample_seconds / max(once, 1e-7)))
                sample = once if calls[name] == 1 else _seconds(call, calls[name])
            else:
                sample = _seconds(call, calls[name])
            samples[name].append(sample / calls[name])
            advance()
    if progress and task is not None:
        progress.remove_task(task)
    timings = {}
    for name, values in samples.items():
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        timings[name] = Timing(median, lower, upper, len(values), calls[name], first[name])
    return timings


def _seconds(call: Contestant, calls: int) -> float:
    collecting = gc.isenabled()
    gc.disable()
    try:
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - begun
    finally:
        if collecting:
            gc.enable()
