"""What a simulation knows between two steps: positions, moments so far, its checkpoint."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sde_mtl.simulation.dynamics import Dynamics
from sde_mtl.simulation.fused import DIVERGED, FusedSteps


class CheckpointError(ValueError):
    """A checkpoint belongs to another simulation, or is damaged."""


@dataclass
class Streaming:
    """Mean and scatter merged block by block (Chan, Golub, LeVeque 1979)."""

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
        return self.scatter / max(self.count - 1, 1) if self.count else self.scatter * torch.nan


@dataclass
class State:
    """Everything that a simulation knows between two steps."""

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

    def advance(
        self, dynamics: Dynamics, fused: FusedSteps | None, numbers: Tensor, size: int, count: int, seed: int
    ) -> None:
        """``count`` steps of the first ``size`` paths if fused, else one step of the whole block."""
        if fused is not None:
            first = int(numbers[0])
            fused.advance(self.theta[:size], self.alive[:size], first, self.step, count, seed)
            return
        theta = dynamics.advance(self.theta, numbers, self.step, seed)
        self.alive &= (theta.abs() < DIVERGED).all(-1)
        self.theta = torch.where(self.alive[:, None], theta, 0.0)

    def finish_block(self, begin: Tensor, within: slice) -> None:
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

    def save(self, path: Path, mark: str) -> None:
        content: dict[str, Any] = {**self.__dict__, "mark": mark}
        content["streams"] = [(part.mean, part.scatter, part.count) for part in self.streams]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        torch.save(content, temporary)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path, mark: str, device: torch.device) -> "State":
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")
            content["theta"], content["alive"] = (content[name].to(device) for name in ("theta", "alive"))
            content["streams"] = [Streaming(*part) for part in content["streams"]]
            state = cls(**content)
        except Exception as error:
            raise CheckpointError(f"{path} is damaged ({error}); remove it to start again") from error
        if state.mark != mark:
            raise CheckpointError(f"{path} belongs to another simulation; remove it or name another checkpoint")
        return state
