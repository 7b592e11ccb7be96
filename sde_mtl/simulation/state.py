"""What a simulation knows between two steps: positions, moments so far; and its checkpoint on disk."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optimizers.files import whole


class CheckpointError(ValueError):
    """A checkpoint belongs to another simulation, or is damaged."""


@dataclass
class Streaming:
    """Mean (d,) and scatter (d, d) of ``count`` positions, merged block by block (Chan, Golub, LeVeque 1979)."""

    mean: Tensor
    scatter: Tensor
    count: int = 0

    def merge(self, sample: NDArray[np.float64]) -> None:
        """Add (n, d) positions. In numpy: threads of torch and BLAS would spin on for a while beside the kernels'."""
        n = len(sample)
        if n == 0:
            return
        mean = torch.from_numpy(sample.mean(0))
        centred = sample - mean.numpy()
        shift = mean - self.mean
        count = self.count + n
        self.scatter += torch.from_numpy(np.einsum("na,nb->ab", centred, centred))
        self.scatter += torch.outer(shift, shift) * (self.count * n / count)
        self.mean = self.mean + shift * (n / count)
        self.count = count

    def covariance(self) -> Tensor:
        """Unbiased, (d, d); NaN before the first position."""
        return self.scatter / max(self.count - 1, 1) if self.count else self.scatter * torch.nan


@dataclass
class State:
    """Everything that a simulation knows between two steps.

    Attributes:
        theta: (block, d) positions of the present block, on its device.
        alive: (block,) bool, paths that have not diverged.
        streams: moments of the finished blocks, one of each recorded step.
        kept: (k, R, d) chosen paths at the recorded steps.
        passage: (N,) first step inside the target, −1 before; empty without a target.
        occupation: (N,) steps inside the region so far; empty without a region.
        snapshots: positions of the present block at the steps recorded so far.
        block: number of the present block.
        step: of the present block.
        diverged: paths of the finished blocks that diverged.
        mark: of the simulation, when read from a checkpoint.
    """

    theta: Tensor
    alive: Tensor
    streams: list[Streaming]
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
        cls, begin: Tensor, recorded: list[int], paths: int, keep: int, passages: bool, occupied: bool
    ) -> "State":
        """Before the first step of the first block.

        Args:
            begin: (block, d) start of every path of a block; it is copied.
            recorded: steps whose moments are kept.
            paths: of all blocks together.
            keep: number of chosen paths.
            passages, occupied: whether first passages and occupation are recorded.
        """
        d = begin.shape[1]
        zero = [torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)]
        return cls(
            begin.clone(memory_format=torch.contiguous_format),
            torch.ones(len(begin), dtype=torch.bool, device=begin.device),
            [Streaming(zero[0].clone(), zero[1].clone()) for _ in recorded],
            torch.full((keep, len(recorded), d), torch.nan, dtype=torch.float64),
            torch.full((paths if passages else 0,), -1, dtype=torch.int64),
            torch.zeros(paths if occupied else 0, dtype=torch.float64),
        )

    def finish_block(self, begin: Tensor, within: slice) -> None:
        """Add the block's moments to those so far, and go back to ``begin`` for the next block.

        Args:
            begin: (block, d) start of every path of a block; it is copied.
            within: numbers of the block's paths; places after them do not count.
        """
        survived = self.alive[: within.stop - within.start].cpu()
        lost = ~survived
        for stream, snapshot in zip(self.streams, self.snapshots, strict=True):
            stream.merge(snapshot.numpy()[survived.numpy()])
        self.diverged += int(lost.sum())
        if len(self.occupation):
            self.occupation[within][lost] = torch.nan
        self.theta = begin.clone(memory_format=torch.contiguous_format)
        self.alive = torch.ones_like(self.alive)
        self.snapshots = []
        self.block, self.step = self.block + 1, 0


class Checkpoint:
    """The file from which a killed simulation continues.

    Args:
        path: of the file; without one nothing is ever written.
        mark: tells which simulation this is.
        seconds: between two writes, at least.
    """

    def __init__(self, path: Path | None, mark: Callable[[], str], seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._mark = "" if path is None else mark()
        self._written = time.monotonic()

    def load(self, device: torch.device) -> State | None:
        """The state in the file, if there is one.

        Raises:
            CheckpointError: if the file is damaged or belongs to another simulation.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            content = torch.load(self._path, weights_only=True, map_location="cpu")
            content["theta"], content["alive"] = (content[name].to(device) for name in ("theta", "alive"))
            content["streams"] = [Streaming(*part) for part in content["streams"]]
            state = State(**content)
        except Exception as error:
            raise CheckpointError(f"{self._path} is damaged ({error}); remove it to start again") from error
        if state.mark != self._mark:
            raise CheckpointError(f"{self._path} belongs to another simulation; remove it or name another checkpoint")
        return state

    def save_if_due(self, state: State) -> None:
        """Write the state if the last write is long enough ago."""
        if self._path is None or time.monotonic() - self._written < self._seconds:
            return
        content: dict[str, Any] = {**state.__dict__, "mark": self._mark}
        content["streams"] = [(part.mean, part.scatter, part.count) for part in state.streams]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with whole(self._path) as temporary:
            torch.save(content, temporary)
        self._written = time.monotonic()

    def remove(self) -> None:
        """At the end of the simulation."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
