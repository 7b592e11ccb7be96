"""The loop that one writes in numpy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peers.process import LEARNING_RATE, Contestant, Precision, Process

PACKAGES = ("numpy",)


def loop(process: Process, paths: int, steps: int, precision: Precision) -> Callable[[int], NDArray[Any]]:
    H, m, S, diagonal, start = process.arrays(precision)
    kind = np.dtype(precision).type
    dt, root = kind(LEARNING_RATE), kind(math.sqrt(LEARNING_RATE))

    def run(seed: int) -> NDArray[Any]:
        generator = np.random.default_rng(seed)
        x = np.broadcast_to(start, (paths, len(start)))
        for _ in range(steps):
            z = generator.standard_normal(x.shape, dtype=kind)
            noise = diagonal * z if process.diagonal else z @ S.T
            x = x - dt * ((x - m) @ H) + root * noise
        return x

    return run


CONTESTANTS = {"numpy loop": Contestant(loop, steps=500)}
