"""sdeint's itoEuler, which takes one path at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import sdeint
from numpy.typing import NDArray

from peers.process import LEARNING_RATE, Contestant, Precision, Process

PACKAGES = ("sdeint",)


def build(process: Process, paths: int, steps: int, precision: Precision) -> Callable[[int], NDArray[Any]]:
    H, m, S, _, start = process.arrays(precision)
    times = np.linspace(0.0, steps * LEARNING_RATE, steps + 1)

    def run(seed: int) -> NDArray[Any]:
        generator = np.random.default_rng(seed)
        ends = [
            sdeint.itoEuler(lambda y, t: (m - y) @ H, lambda y, t: S, start, times, generator=generator)[-1]
            for _ in range(paths)
        ]
        return np.stack(ends)

    return run


CONTESTANTS = {"sdeint": Contestant(build, steps=300, paths=40)}
