"""The Ornstein–Uhlenbeck process that every simulator is given, as arrays, and the laws of its Euler scheme."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sde_mtl import AdditiveNoise, Quadratic
from sde_mtl.theory.t03_diffusion_decay import OrnsteinUhlenbeck

Precision = Literal["float32", "float64"]
Array = NDArray[np.float64]
WEIGHTS = (1.0, 1.5)
LEARNING_RATE = 0.01
"""Also the time step, so that the scheme is the recursion of linear scalarization."""


@dataclass(frozen=True)
class Process:
    """dX = −H(X − m)dt + S dW from a fixed start: the SDE of linear scalarization on two conflicting quadratics."""

    problem: Quadratic
    noise: AdditiveNoise
    diagonal: bool
    """Whether S is diagonal."""

    @property
    def dimension(self) -> int:
        return self.problem.dimension

    @cached_property
    def start(self) -> Array:
        return np.linspace(2.0, -1.0, self.dimension)

    @cached_property
    def law(self) -> OrnsteinUhlenbeck:
        return OrnsteinUhlenbeck.of(self.problem, self.noise, WEIGHTS, LEARNING_RATE)

    @cached_property
    def diffusion(self) -> Array:
        """S with SSᵀ = ηΣ_LS."""
        return np.linalg.cholesky(LEARNING_RATE * self.law.diffusion)

    def arrays(self, precision: Precision) -> tuple[NDArray[Any], ...]:
        """H, m, S, its diagonal, and the start, in one precision."""
        parts = self.law.hessian, self.law.minimizer, self.diffusion, self.diffusion.diagonal(), self.start
        return tuple(np.ascontiguousarray(part, dtype=precision) for part in parts)


def ornstein_uhlenbeck(dimension: int, *, diagonal: bool, seed: int = 0) -> Process:
    """Two tasks with full curvatures, their noise anticorrelated; S diagonal or full."""
    generator = np.random.default_rng(seed)
    curvatures = []
    for _ in range(2):
        basis = np.linalg.qr(generator.standard_normal((dimension, dimension))).Q
        matrix = (basis * generator.uniform(0.5, 2.0, dimension)) @ basis.T
        curvatures.append((matrix + matrix.T) / 2)
    variances = generator.uniform(0.5, 2.0, dimension)
    basis = np.eye(dimension) if diagonal else np.linalg.qr(generator.standard_normal((dimension, dimension))).Q
    of_task = (basis * variances) @ basis.T
    covariance = np.einsum("ij,ab->iajb", [[1.0, -0.6], [-0.6, 1.0]], (of_task + of_task.T) / 2)
    centres = generator.standard_normal((2, dimension))
    return Process(Quadratic(curvatures, centres), AdditiveNoise(covariance), diagonal)


@dataclass(frozen=True)
class Contestant:
    """A way to simulate.

    Attributes:
        build: (process, paths, steps, precision) to a function of the seed that gives the (paths, d) ends.
        steps: of a sample, where a whole run takes too long and every step costs the same.
        paths: likewise, where every path costs the same.
    """

    build: Callable[[Process, int, int, Precision], Callable[[int], NDArray[Any]]]
    steps: int | None = None
    paths: int | None = None


@dataclass(frozen=True)
class Moments:
    """Terminal moments of ``paths`` paths after ``steps`` steps."""

    mean: Array
    covariance: Array
    paths: int
    steps: int

    @classmethod
    def of(cls, ends: NDArray[Any], steps: int) -> "Moments":
        """From the ends themselves, (n, d)."""
        covariance = np.cov(ends.T, dtype=np.float64).reshape(ends.shape[1], -1)
        return cls(ends.mean(0, dtype=np.float64), covariance, len(ends), steps)

    def standard_errors(self, process: Process) -> float:
        """Largest deviation of a mean or covariance from the closed form, in standard errors."""
        mean = process.law.discrete_mean(self.steps, process.start)
        covariance = process.law.discrete_covariance(self.steps)
        variance = covariance.diagonal()
        of_mean = np.abs(self.mean - mean) / np.sqrt(variance / self.paths)
        spread = np.sqrt((covariance**2 + np.outer(variance, variance)) / (self.paths - 1))
        return float(max(of_mean.max(), (np.abs(self.covariance - covariance) / spread).max()))
