"""Run many paths at once; keep their moments, chosen paths, first passages and occupation, not every path."""

import hashlib
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from rich.progress import Progress
from torch import Tensor

from sde_mtl.dynamics import Dynamics

DIVERGED = 1e12
BLOCK = 2048
"""Paths advanced together. Blocks are always full and begin at multiples of BLOCK, so that a path sits at the same
place of the same batch whatever the number of paths, and comes out bitwise the same."""

Region = Callable[[Tensor], Tensor]
"""(n, d) positions to (n,) bool."""


class DivergedWarning(UserWarning):
    """Some paths left every bound; the results describe the others."""


class CheckpointError(ValueError):
    """A checkpoint belongs to another simulation, or is damaged."""


@dataclass(frozen=True)
class Ensemble:
    """What is kept of many paths; moments are float64 over the paths that did not diverge.

    Attributes:
        steps: (R,) int64 recorded step numbers; 0 is the start.
        times: (R,) steps times the dynamics' time step.
        horizon: steps simulated.
        time_step: of the dynamics.
        mean: (R, d).
        covariance: (R, d, d), unbiased.
        paths: paths that the moments describe.
        diverged: paths left out because a coordinate exceeded 1e12 or became NaN.
        kept: (k, R, d) chosen paths at the recorded steps, NaN after divergence.
        passage: (N,) int64 first step inside the target, −1 where it was not reached; None without a target. N counts
            every path, diverged ones too.
        occupation: (N,) share of the steps 1 … n inside the region, NaN for diverged paths; None without a region.
    """

    steps: Tensor
    times: Tensor
    horizon: int
    time_step: float
    mean: Tensor
    covariance: Tensor
    paths: int
    diverged: int
    kept: Tensor
    passage: Tensor | None
    occupation: Tensor | None

    def mean_error(self) -> Tensor:
        """Standard error of each mean, (R, d)."""
        return (self.covariance.diagonal(dim1=-2, dim2=-1) / self.paths).sqrt()

    def covariance_error(self) -> Tensor:
        """Standard error of each covariance entry for Gaussian θ, √((C_ij² + C_iiC_jj)/(n−1)), (R, d, d)."""
        variance = self.covariance.diagonal(dim1=-2, dim2=-1)
        product = variance[..., :, None] * variance[..., None, :]
        return ((self.covariance**2 + product) / (self.paths - 1)).sqrt()

    def passage_rate(self) -> tuple[float, float]:
        """Arrivals per unit of time spent outside the target, and its standard error; NaN if all paths begin inside.

        The maximum-likelihood rate of exponential passage times when some paths have not arrived (censored).
        """
        if self.passage is None:
            raise ValueError("simulate without target= records no first passages")
        spent = torch.where(self.passage >= 0, self.passage, self.horizon).sum().item() * self.time_step
        if spent == 0:
            return math.nan, math.nan
        count = int((self.passage > 0).sum())
        return count / spent, max(count, 1) ** 0.5 / spent


def simulate(
    dynamics: Dynamics,
    initial: Tensor | ArrayLike,
    steps: int,
    *,
    paths: int = 10_000,
    seed: int = 0,
    record: Iterable[int] | None = None,
    keep: Sequence[int] = (),
    target: Region | None = None,
    region: Region | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    progress: Progress | None = None,
) -> Ensemble:
    """Advance ``paths`` independent paths and return what was recorded of them.

    Path i depends on (seed, i) alone: bitwise the same whatever ``paths`` is, on one device. Memory does not grow with
    ``steps``, and with ``paths`` only by the passage and occupation of each.

    Args:
        dynamics: a recursion or SDE scheme.
        initial: (d,) start of every path.
        steps: number of steps ≥ 1.
        paths: number of paths ≥ 2.
        seed: of the noise.
        record: steps whose moments are kept; the last one by default.
        keep: numbers of paths whose positions at the recorded steps are kept.
        target: set whose first passage is recorded.
        region: set whose occupation is recorded.
        checkpoint: file to continue from if it exists; written every ``checkpoint_seconds`` and removed at the end.
        checkpoint_seconds: how often.
        progress: a running rich progress display to report to.

    Raises:
        ValueError: for steps, paths, recorded steps, kept paths or a start out of range.
        CheckpointError: if the checkpoint is damaged or belongs to another simulation; it is left alone.

    Warns:
        DivergedWarning: if paths diverged; they are counted and left out.

    Example:
        >>> from optimizers import linear
        >>> from sde_mtl import AdditiveNoise, Quadratic, Recursion
        >>> problem = Quadratic([[[1.0]], [[3.0]]], [[1.0], [-1.0]])
        >>> noise = AdditiveNoise.correlated([1.0, 1.0], correlation=-1.0)
        >>> training = Recursion(problem, noise, linear, [1, 1], 0.1)
        >>> ensemble = simulate(training, [0.0], 200, paths=100, target=lambda theta: theta[:, 0] < -0.4)
        >>> ensemble.mean
        tensor([[-0.5000]], dtype=torch.float64)
        >>> ensemble.covariance.item() < 1e-20  # opposite noise cancels in the sum: diffusion decay
        True
        >>> ensemble.passage.unique()  # −0.5(1 − 0.6^n) < −0.4 from n = 4 on
        tensor([4])
    """
    start = torch.as_tensor(initial, dtype=torch.float64)
    recorded = sorted({steps} if record is None else set(record))
    for name, value, least in (("steps", steps, 1), ("paths", paths, 2)):
        if value < least:
            raise ValueError(f"{name} = {value} must be at least {least}")
    if not recorded or recorded[0] < 0 or recorded[-1] > steps:
        raise ValueError(f"record = {recorded} must be steps in 0 … {steps}")
    if start.shape != (dynamics.dimension,) or not start.isfinite().all():
        raise ValueError(f"initial must be {dynamics.dimension} finite numbers, got {start.tolist()}")
    if any(not 0 <= path < paths for path in keep):
        raise ValueError(f"keep = {list(keep)} must be path numbers in 0 … {paths - 1}")

    state = _State.begin(start, recorded, paths, len(keep), target is not None, region is not None)
    mark = _fingerprint(dynamics, start, seed, [steps, paths, recorded, list(keep), target is None, region is None])
    if checkpoint is not None and checkpoint.exists():
        state = _State.load(checkpoint, mark)
    task = None
    if progress is not None:
        done = state.block * (steps + 1) + state.step
        task = progress.add_task("paths", total=-(-paths // BLOCK) * (steps + 1), completed=done)
    saved = time.monotonic()
    while state.block * BLOCK < paths:
        first = state.block * BLOCK
        numbers = torch.arange(first, first + BLOCK)
        within = slice(first, min(first + BLOCK, paths))
        size = within.stop - first
        here = [(at, path - first) for at, path in enumerate(keep) if first <= path < within.stop]
        while state.step <= steps:
            step, theta = state.step, state.theta
            if step in recorded:
                state.snapshots.append(theta[:size].clone())
                for slot, lane in here:
                    state.kept[slot, recorded.index(step)] = theta[lane] if state.alive[lane] else torch.nan
            if target is not None:
                new = target(theta)[:size] & (state.passage[within] < 0) & state.alive[:size]
                state.passage[within][new] = step
            if region is not None and step > 0:
                state.occupation[within] += region(theta)[:size]
            if step < steps:
                theta = dynamics.advance(theta, numbers, step, seed)
                state.alive &= (theta.abs() < DIVERGED).all(-1)
                state.theta = torch.where(state.alive[:, None], theta, 0.0)
            state.step += 1
            if progress is not None and task is not None:
                progress.advance(task)
            if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                state.save(checkpoint, mark)
                saved = time.monotonic()
        state.finish_block(start, within)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    if state.diverged:
        warnings.warn(
            f"{state.diverged} of {paths} paths diverged and are left out; lower the learning rate",
            DivergedWarning,
            stacklevel=2,
        )
    return Ensemble(
        torch.tensor(recorded),
        torch.tensor(recorded, dtype=torch.float64) * dynamics.time_step,
        steps,
        dynamics.time_step,
        torch.stack([part.mean for part in state.streams]),
        torch.stack([part.covariance() for part in state.streams]),
        paths - state.diverged,
        state.diverged,
        state.kept,
        state.passage if target is not None else None,
        state.occupation / steps if region is not None else None,
    )


@dataclass
class _Streaming:
    """Mean and scatter merged block by block (Chan, Golub, LeVeque 1979)."""

    mean: Tensor
    scatter: Tensor
    count: int = 0

    def merge(self, sample: Tensor) -> None:
        n = len(sample)
        if n == 0:
            return
        mean = sample.mean(0)
        centred = sample - mean
        shift = mean - self.mean
        count = self.count + n
        self.scatter += centred.T @ centred + torch.outer(shift, shift) * (self.count * n / count)
        self.mean = self.mean + shift * (n / count)
        self.count = count

    def covariance(self) -> Tensor:
        return self.scatter / max(self.count - 1, 1) if self.count else self.scatter * torch.nan


@dataclass
class _State:
    """Everything that a simulation knows between two steps."""

    theta: Tensor
    alive: Tensor
    streams: list[_Streaming]
    kept: Tensor
    passage: Tensor
    occupation: Tensor
    snapshots: list[Tensor] = field(default_factory=list)
    block: int = 0
    step: int = 0
    diverged: int = 0
    mark: str = ""

    @classmethod
    def begin(
        cls, start: Tensor, recorded: list[int], paths: int, keep: int, passages: bool, occupied: bool
    ) -> "_State":
        d = len(start)
        zero = [torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)]
        return cls(
            start.expand(BLOCK, -1).clone(),
            torch.ones(BLOCK, dtype=torch.bool),
            [_Streaming(zero[0].clone(), zero[1].clone()) for _ in recorded],
            torch.full((keep, len(recorded), d), torch.nan, dtype=torch.float64),
            torch.full((paths if passages else 0,), -1, dtype=torch.int64),
            torch.zeros(paths if occupied else 0, dtype=torch.float64),
        )

    def finish_block(self, start: Tensor, within: slice) -> None:
        survived = self.alive[: within.stop - within.start]
        lost = ~survived
        for stream, snapshot in zip(self.streams, self.snapshots, strict=True):
            stream.merge(snapshot[survived])
        self.diverged += int(lost.sum())
        if len(self.occupation):
            self.occupation[within][lost] = torch.nan
        self.theta = start.expand(BLOCK, -1).clone()
        self.alive = torch.ones(BLOCK, dtype=torch.bool)
        self.snapshots = []
        self.block, self.step = self.block + 1, 0

    def save(self, path: Path, mark: str) -> None:
        content: dict[str, Any] = {**self.__dict__, "mark": mark}
        content["streams"] = [(part.mean, part.scatter, part.count) for part in self.streams]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        torch.save(content, temporary)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path, mark: str) -> "_State":
        try:
            content = torch.load(path, weights_only=True)
            content["streams"] = [_Streaming(*part) for part in content["streams"]]
            state = cls(**content)
        except Exception as error:
            raise CheckpointError(f"{path} is damaged ({error}); remove it to start again") from error
        if state.mark != mark:
            raise CheckpointError(f"{path} belongs to another simulation; remove it or name another checkpoint")
        return state


def _fingerprint(dynamics: Dynamics, start: Tensor, seed: int, settings: list[Any]) -> str:
    """Of the arguments and of two steps of the first block: other dynamics, noise or options move it otherwise."""
    theta, numbers = start.expand(BLOCK, -1), torch.arange(BLOCK)
    for step in range(2):
        theta = dynamics.advance(theta, numbers, step, seed)
    told = f"{type(dynamics).__name__} {dynamics.time_step} {start.tolist()} {seed} {settings}"
    return hashlib.sha256(told.encode() + theta.numpy().tobytes()).hexdigest()


def recorded_steps(steps: int, count: int) -> Sequence[int]:
    """About ``count`` steps from 0 to ``steps``, evenly spread.

    Example:
        >>> recorded_steps(100, 5)
        [0, 25, 50, 75, 100]
    """
    return sorted({round(step) for step in torch.linspace(0, steps, count).tolist()})
