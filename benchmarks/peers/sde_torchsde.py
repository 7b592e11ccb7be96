"""torchsde's Euler scheme, as it comes and with a Brownian motion whose tree is laid out for the time step."""

from collections.abc import Callable
from typing import Any

import torch
import torchsde
from numpy.typing import NDArray
from torch import Tensor

from peers.process import LEARNING_RATE, Contestant, Precision, Process

PACKAGES = ("torchsde",)


class OrnsteinUhlenbeck(torch.nn.Module):
    """The drift and diffusion that torchsde asks for."""

    sde_type = "ito"

    def __init__(self, process: Process, precision: Precision) -> None:
        super().__init__()
        self.noise_type = "diagonal" if process.diagonal else "additive"
        self.H, self.m, self.S, self.diagonal, self.start = (
            torch.from_numpy(part) for part in process.arrays(precision)
        )

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return (self.m - y) @ self.H

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.diagonal.expand_as(y) if self.noise_type == "diagonal" else self.S.expand(len(y), -1, -1)


def builder(aligned: bool) -> Callable[[Process, int, int, Precision], Callable[[int], NDArray[Any]]]:
    def build(process: Process, paths: int, steps: int, precision: Precision) -> Callable[[int], NDArray[Any]]:
        sde = OrnsteinUhlenbeck(process, precision)
        start = sde.start.expand(paths, -1).clone()
        times = torch.tensor([0.0, steps * LEARNING_RATE], dtype=start.dtype)

        def run(seed: int) -> NDArray[Any]:
            torch.manual_seed(seed)  # of torchsde's own Brownian motion
            brownian = None
            if aligned:
                brownian = torchsde.BrownianInterval(
                    times[0], times[1], size=start.shape, dtype=start.dtype, entropy=seed, dt=LEARNING_RATE,
                    levy_area_approximation="none",
                )  # fmt: skip
            with torch.no_grad():
                ends = torchsde.sdeint(sde, start, times, bm=brownian, method="euler", dt=LEARNING_RATE)
            return ends[-1].numpy()

        return run

    return build


CONTESTANTS = {
    "torchsde": Contestant(builder(aligned=False), paths=5_000),  # its tree depends on the steps: all of them
    "torchsde, dt-aligned": Contestant(builder(aligned=True), steps=250),
}
