"""The loop that one writes in torch, and the drawing of its normals alone."""

import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from peers.process import LEARNING_RATE, Contestant, Precision, Process

PACKAGES = ("torch",)


def loop(process: Process, paths: int, steps: int, precision: Precision) -> Callable[[int], NDArray[Any]]:
    H, m, S, diagonal, start = (torch.from_numpy(part) for part in process.arrays(precision))
    root = math.sqrt(LEARNING_RATE)

    def run(seed: int) -> NDArray[Any]:
        generator = torch.Generator().manual_seed(seed)
        x = start.expand(paths, -1)
        for _ in range(steps):
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            noise = diagonal * z if process.diagonal else z @ S.T
            x = x - LEARNING_RATE * ((x - m) @ H) + root * noise
        return x.numpy()

    return run


def normals_alone(process: Process, paths: int, steps: int, precision: Precision) -> Callable[[int], None]:
    """As many standard normals as the loop needs, into the same memory, and nothing else."""
    z = torch.empty(paths, process.dimension, dtype=getattr(torch, precision))

    def run(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            z.normal_(generator=generator)

    return run


CONTESTANTS = {"torch loop": Contestant(loop)}
