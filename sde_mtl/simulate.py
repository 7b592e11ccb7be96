"""Run many paths at once and keep their moments, not the paths."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from rich.progress import Progress
from torch import Tensor

from sde_mtl.dynamics import Dynamics

DIVERGED = 1e12


class DivergedWarning(UserWarning):
    """Some paths left every bound; the moments describe the others."""


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of θ over paths at recorded steps, float64.

    Attributes:
        steps: (R,) int64 recorded step numbers; 0 is the start.
        times: (R,) steps times the dynamics' time step.
        mean: (R, d).
        covariance: (R, d, d), unbiased.
        paths: paths that the moments describe.
        diverged: paths left out because a coordinate exceeded 1e12 or became NaN.
    """

    steps: Tensor
    times: Tensor
    mean: Tensor
    covariance: Tensor
    paths: int
    diverged: int

    def mean_error(self) -> Tensor:
        """Standard error of each mean, (R, d)."""
        return (self.covariance.diagonal(dim1=-2, dim2=-1) / self.paths).sqrt()

    def covariance_error(self) -> Tensor:
        """Standard error of each covariance entry for Gaussian θ, √((C_ij² + C_iiC_jj)/(n−1)), (R, d, d)."""
        variance = self.covariance.diagonal(dim1=-2, dim2=-1)
        product = variance[..., :, None] * variance[..., None, :]
        return ((self.covariance**2 + product) / (self.paths - 1)).sqrt()


def simulate(
    dynamics: Dynamics,
    initial: Tensor | ArrayLike,
    steps: int,
    *,
    paths: int = 10_000,
    seed: int = 0,
    record: Iterable[int] | None = None,
    chunk: int = 10_000,
    progress: Progress | None = None,
) -> Moments:
    """Advance ``paths`` independent paths and return their moments at the recorded steps.

    The result depends on (seed, paths) and not on ``chunk``, up to rounding: every path has its own noise.

    Args:
        dynamics: a recursion or SDE scheme.
        initial: (d,) start of every path.
        steps: number of steps ≥ 1.
        paths: number of paths ≥ 2.
        seed: of the noise.
        record: steps whose moments are kept; the last one by default.
        chunk: paths held in memory at a time.
        progress: a running rich progress display to report to.

    Raises:
        ValueError: for steps, paths, chunk, recorded steps or a start out of range.

    Warns:
        DivergedWarning: if paths diverged; they are counted and left out.

    Example:
        >>> from optimizers import linear
        >>> from sde_mtl import AdditiveNoise, Quadratic, Recursion
        >>> problem = Quadratic([[[1.0]], [[3.0]]], [[1.0], [-1.0]])
        >>> noise = AdditiveNoise.correlated([1.0, 1.0], correlation=-1.0)
        >>> moments = simulate(Recursion(problem, noise, linear, [1, 1], 0.1), [0.0], 200, paths=100)
        >>> moments.mean
        tensor([[-0.5000]], dtype=torch.float64)
        >>> moments.covariance.item() < 1e-20  # opposite noise cancels in the sum: diffusion decay
        True
    """
    start = torch.as_tensor(initial, dtype=torch.float64)
    recorded = sorted({steps} if record is None else set(record))
    for name, value, least in (("steps", steps, 1), ("paths", paths, 2), ("chunk", chunk, 1)):
        if value < least:
            raise ValueError(f"{name} = {value} must be at least {least}")
    if not recorded or recorded[0] < 0 or recorded[-1] > steps:
        raise ValueError(f"record = {recorded} must be steps in 0 … {steps}")
    if start.shape != (dynamics.dimension,) or not start.isfinite().all():
        raise ValueError(f"initial must be {dynamics.dimension} finite numbers, got {start.tolist()}")

    task = None if progress is None else progress.add_task("paths", total=steps * -(-paths // chunk))
    total: list[_Streaming] = [_Streaming(dynamics.dimension) for _ in recorded]
    diverged = 0
    for first in range(0, paths, chunk):
        numbers = torch.arange(first, min(first + chunk, paths))
        snapshots: list[Tensor] = []
        theta = start.expand(len(numbers), -1).clone()
        alive = torch.ones(len(numbers), dtype=torch.bool)
        for step in range(steps + 1):
            if step in recorded:
                snapshots.append(theta.clone())
            if step < steps:
                theta = dynamics.advance(theta, numbers, step, seed)
                alive &= (theta.abs() < DIVERGED).all(-1)
                theta = torch.where(alive[:, None], theta, 0.0)
                if progress is not None and task is not None:
                    progress.advance(task)
        diverged += int((~alive).sum())
        for part, snapshot in zip(total, snapshots, strict=True):
            part.merge(snapshot[alive])
    if diverged:
        warnings.warn(
            f"{diverged} of {paths} paths diverged and are left out of the moments; lower the learning rate",
            DivergedWarning,
            stacklevel=2,
        )
    return Moments(
        torch.tensor(recorded),
        torch.tensor(recorded, dtype=torch.float64) * dynamics.time_step,
        torch.stack([part.mean for part in total]),
        torch.stack([part.covariance() for part in total]),
        paths - diverged,
        diverged,
    )


class _Streaming:
    """Mean and scatter merged chunk by chunk (Chan, Golub, LeVeque 1979)."""

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self.scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

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


def recorded_steps(steps: int, count: int) -> Sequence[int]:
    """About ``count`` steps from 0 to ``steps``, evenly spread.

    Example:
        >>> recorded_steps(100, 5)
        [0, 25, 50, 75, 100]
    """
    return sorted({round(step) for step in torch.linspace(0, steps, count).tolist()})
