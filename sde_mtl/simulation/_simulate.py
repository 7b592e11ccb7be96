"""Run many paths at once; keep their moments, chosen paths, first passages and occupation, not every path."""

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from rich.progress import Progress
from torch import Tensor

from sde_mtl.simulation.dynamics import Dynamics
from sde_mtl.simulation.fused import fuse
from sde_mtl.simulation.state import State

BLOCK = 2048
"""Paths advanced together on the CPU. In torch, blocks are always full and begin at multiples of BLOCK, so that a path
sits at the same place of the same batch whatever the number of paths, and comes out bitwise the same."""
DEVICE_BLOCK = 2**16
"""The same on other devices, which need more to do at a time."""

Region = Callable[[Tensor], Tensor]
"""(n, d) positions to (n,) bool."""


class DivergedWarning(UserWarning):
    """Some paths left every bound; the results describe the others."""


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

    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")

    device = torch.device(device)
    block = BLOCK if device.type == "cpu" else DEVICE_BLOCK
    begin = start.to(device, dtype).expand(block, -1)
    state = State.begin(begin, recorded, paths, len(keep), target is not None, region is not None)
    mark = ""
    if checkpoint is not None:
        settings = [steps, paths, recorded, list(keep), target is None, region is None, str(dtype), device.type]
        mark = _fingerprint(dynamics, begin, seed, settings)
        if checkpoint.exists():
            state = State.load(checkpoint, mark, device)
    task = None
    if progress is not None:
        done = state.block * (steps + 1) + state.step
        task = progress.add_task("paths", total=-(-paths // block) * (steps + 1), completed=done)
    fused = fuse(dynamics, dtype) if device.type == "cpu" else None
    at_most = 1 if fused is None or target is not None or region is not None else fused.steps_per_call(block)
    saved = time.monotonic()
    while state.block * block < paths:
        first = state.block * block
        numbers = torch.arange(first, first + block, device=device)
        within = slice(first, min(first + block, paths))
        size = within.stop - first
        here = [(at, path - first) for at, path in enumerate(keep) if first <= path < within.stop]
        while state.step <= steps:
            step, theta = state.step, state.theta
            if step in recorded:
                state.snapshots.append(theta[:size].to("cpu", torch.float64, copy=True))
                for slot, lane in here:
                    state.kept[slot, recorded.index(step)] = theta[lane] if state.alive[lane] else torch.nan
            if target is not None:
                inside = target(theta)[:size].cpu()
                new = inside & (state.passage[within] < 0) & state.alive[:size].cpu()
                state.passage[within][new] = step
            if region is not None and step > 0:
                state.occupation[within] += region(theta)[:size].cpu()
            count = 1
            if step < steps:
                count = min(at_most, next(later for later in [*recorded, steps] if later > step) - step)
                state.advance(dynamics, fused, numbers, size, count, seed)
            state.step += count
            if progress is not None and task is not None:
                progress.advance(task, count)
            if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                state.save(checkpoint, mark)
                saved = time.monotonic()
        state.finish_block(begin, within)
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


def _fingerprint(dynamics: Dynamics, begin: Tensor, seed: int, settings: list[Any]) -> str:
    """Of the arguments and of two steps of the first block: other dynamics, noise or options move it otherwise."""
    theta, numbers = begin.clone(memory_format=torch.contiguous_format), torch.arange(len(begin), device=begin.device)
    for step in range(2):
        theta = dynamics.advance(theta, numbers, step, seed)
    told = f"{type(dynamics).__name__} {dynamics.time_step} {begin[0].tolist()} {seed} {settings}"
    return hashlib.sha256(told.encode() + theta.cpu().numpy().tobytes()).hexdigest()


def recorded_steps(steps: int, count: int) -> Sequence[int]:
    """About ``count`` steps from 0 to ``steps``, evenly spread.

    Example:
        >>> recorded_steps(100, 5)
        [0, 25, 50, 75, 100]
    """
    return sorted({round(step) for step in torch.linspace(0, steps, count).tolist()})
