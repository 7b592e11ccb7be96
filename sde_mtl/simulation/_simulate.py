"""Run many paths at once; keep their moments, chosen paths, first passages and occupation, not every path."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from rich.progress import Progress
from torch import Tensor

from sde_mtl.simulation.dynamics import Dynamics
from sde_mtl.simulation.ensemble import Ensemble
from sde_mtl.simulation.fused import DIVERGED, FusedSteps, fuse
from sde_mtl.simulation.state import Checkpoint, State

BLOCK = 2048
"""Paths advanced together on the CPU. In torch, blocks are always full and begin at multiples of BLOCK, so that a path
sits at the same place of the same batch whatever the number of paths, and comes out bitwise the same."""
DEVICE_BLOCK = 2**16
"""The same on other devices, which need more to do at a time."""

Region = Callable[[Tensor], Tensor]
"""(n, d) positions to (n,) bool."""


class DivergedWarning(UserWarning):
    """Some paths left every bound; the results describe the others."""


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
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Ensemble:
    """Advance ``paths`` independent paths and return what was recorded of them.

    Path i depends on (seed, i) alone: bitwise the same whatever ``paths`` is, on one device. Memory does not grow with
    ``steps``, and with ``paths`` only by the passage and occupation of each.

    On the CPU the dynamics that :func:`sde_mtl.simulation.fused.fuse` knows run compiled, on
    ``torch.get_num_threads()`` threads; every other one step by step in torch.

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
        dtype: of θ, float64 or float32; moments are accumulated in float64 all the same.
        device: of θ. Target and region get θ in its dtype, on its device.

    Raises:
        ValueError: for steps, paths, recorded steps, kept paths or a start out of range, or another dtype.
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
    device = torch.device(device)
    start = torch.as_tensor(initial, dtype=torch.float64)
    recorded = sorted({steps} if record is None else set(record))
    _check(dynamics, start, steps, paths, recorded, keep, dtype)
    begin = start.to(device, dtype).expand(BLOCK if device.type == "cpu" else DEVICE_BLOCK, -1)
    run = _Run(dynamics, begin, steps, paths, seed, recorded, keep, target, region)
    file = Checkpoint(checkpoint, run.fingerprint, checkpoint_seconds)
    state = file.load(device) or run.first_state()
    report = _reporter(progress, run, state)
    advance = run.stepper()
    for block in run.remaining_blocks(state):
        while state.step <= steps:
            run.record(state, block)
            count = advance(state, block) if state.step < steps else 1
            state.step += count
            report(count)
            file.save_if_due(state)
        state.finish_block(begin, block.within)
    file.remove()
    if state.diverged:
        warnings.warn(
            f"{state.diverged} of {paths} paths diverged and are left out; lower the learning rate",
            DivergedWarning,
            stacklevel=2,
        )
    return run.result(state)


def _check(
    dynamics: Dynamics,
    start: Tensor,
    steps: int,
    paths: int,
    recorded: Sequence[int],
    keep: Sequence[int],
    dtype: torch.dtype,
) -> None:
    for name, value, least in (("steps", steps, 1), ("paths", paths, 2)):
        if value < least:
            raise ValueError(f"{name} = {value} must be at least {least}")
    if not recorded or recorded[0] < 0 or recorded[-1] > steps:
        raise ValueError(f"record = {recorded} must be steps in 0 … {steps}")
    if start.shape != (dynamics.dimension,) or not start.isfinite().all():
        raise ValueError(f"initial must be {dynamics.dimension} finite numbers, got {start.tolist()}")
    if any(not 0 <= path < paths for path in keep):
        raise ValueError(f"keep = {list(keep)} must be path numbers in 0 … {paths - 1}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")


@dataclass(frozen=True)
class _Block:
    """Paths that advance together.

    Attributes:
        numbers: (block,) path numbers on the device; the last block's go past the last path.
        within: those that were asked for.
        kept: slot and place in the block of each path that is kept.
    """

    numbers: Tensor
    within: slice
    kept: list[tuple[int, int]]

    @property
    def size(self) -> int:
        """How many were asked for; they come first."""
        return int(self.within.stop - self.within.start)


@dataclass(frozen=True)
class _Run:
    """What was asked for; ``begin`` is the start of every path of a block, the others are arguments of simulate."""

    dynamics: Dynamics
    begin: Tensor
    steps: int
    paths: int
    seed: int
    recorded: list[int]
    keep: Sequence[int]
    target: Region | None
    region: Region | None

    def first_state(self) -> State:
        observed = self.target is not None, self.region is not None
        return State.begin(self.begin, self.recorded, self.paths, len(self.keep), *observed)

    def fingerprint(self) -> str:
        """Of the arguments and of two steps of the first block: other dynamics, noise or options move it otherwise."""
        begin = self.begin
        settings = [self.steps, self.paths, self.recorded, list(self.keep), self.target is None, self.region is None,
                    str(begin.dtype), begin.device.type]  # fmt: skip
        theta, numbers = begin.clone(memory_format=torch.contiguous_format), torch.arange(len(begin)).to(begin.device)
        for step in range(2):
            theta = self.dynamics.advance(theta, numbers, step, self.seed)
        told = f"{type(self.dynamics).__name__} {self.dynamics.time_step} {begin[0].tolist()} {self.seed} {settings}"
        return hashlib.sha256(told.encode() + theta.cpu().numpy().tobytes()).hexdigest()

    def remaining_blocks(self, state: State) -> Iterator[_Block]:
        """The state's block and those after it; the caller takes the state to the next one."""
        length = len(self.begin)
        while (first := state.block * length) < self.paths:
            within = slice(first, min(first + length, self.paths))
            kept = [(slot, path - first) for slot, path in enumerate(self.keep) if first <= path < within.stop]
            yield _Block(torch.arange(first, first + length, device=self.begin.device), within, kept)

    def record(self, state: State, block: _Block) -> None:
        """Take down positions, first passages and occupation at the state's step, as far as they were asked for."""
        step, theta, within, size = state.step, state.theta, block.within, block.size
        if step in self.recorded:
            state.snapshots.append(theta[:size].to("cpu", torch.float64, copy=True))
            for slot, lane in block.kept:
                state.kept[slot, self.recorded.index(step)] = theta[lane] if state.alive[lane] else torch.nan
        if self.target is not None:
            inside = self.target(theta)[:size].cpu()
            new = inside & (state.passage[within] < 0) & state.alive[:size].cpu()
            state.passage[within][new] = step
        if self.region is not None and step > 0:
            state.occupation[within] += self.region(theta)[:size].cpu()

    def stepper(self) -> Callable[[State, _Block], int]:
        """A function that advances a block and returns by how many steps: compiled for dynamics that have kernels."""
        fused = fuse(self.dynamics, self.begin.dtype) if self.begin.device.type == "cpu" else None
        if fused is None:
            return self._step_in_torch
        watched = self.target is not None or self.region is not None
        return partial(self._steps_compiled, fused, 1 if watched else fused.steps_per_call(len(self.begin)))

    def _step_in_torch(self, state: State, block: _Block) -> int:
        theta = self.dynamics.advance(state.theta, block.numbers, state.step, self.seed)
        state.alive &= (theta.abs() < DIVERGED).all(-1)
        state.theta = torch.where(state.alive[:, None], theta, 0.0)
        return 1

    def _steps_compiled(self, fused: FusedSteps, at_most: int, state: State, block: _Block) -> int:
        """As many steps as one call takes, but not past one that is recorded."""
        stop = next(later for later in [*self.recorded, self.steps] if later > state.step)
        count = min(at_most, stop - state.step)
        theta, alive = state.theta[: block.size], state.alive[: block.size]
        fused.advance(theta, alive, block.within.start, state.step, count, self.seed)
        return count

    def result(self, state: State) -> Ensemble:
        time_step = self.dynamics.time_step
        return Ensemble(
            steps=torch.tensor(self.recorded),
            times=torch.tensor(self.recorded, dtype=torch.float64) * time_step,
            horizon=self.steps,
            time_step=time_step,
            mean=torch.stack([part.mean for part in state.streams]),
            covariance=torch.stack([part.covariance() for part in state.streams]),
            paths=self.paths - state.diverged,
            diverged=state.diverged,
            kept=state.kept,
            passage=None if self.target is None else state.passage,
            occupation=None if self.region is None else state.occupation / self.steps,
        )


def _reporter(progress: Progress | None, run: _Run, state: State) -> Callable[[int], None]:
    """Tells a progress display of steps of a block; each has one more, in which it ends."""
    if progress is None:
        return lambda count: None
    each, blocks = run.steps + 1, -(-run.paths // len(run.begin))
    task = progress.add_task("paths", total=blocks * each, completed=state.block * each + state.step)
    return partial(progress.advance, task)


def recorded_steps(steps: int, count: int) -> Sequence[int]:
    """About ``count`` steps from 0 to ``steps``, evenly spread.

    Example:
        >>> recorded_steps(100, 5)
        [0, 25, 50, 75, 100]
    """
    return sorted({round(step) for step in torch.linspace(0, steps, count).tolist()})
