"""Whole blocks of steps as one compiled call, for the dynamics whose drift, noise and aggregator have kernels.

Memory does not grow with steps; threads share the paths. The slow path is each dynamics' own ``advance``.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optimizers.aggregators import DEFAULTS, Aggregator, CAMEGradOptions, came_grad_coefficients, linear
from optimizers.kernels.threads import in_threads
from sde_mtl.problems import AdditiveNoise, CAGradToy, DoubleWell, Problem, Quadratic
from sde_mtl.problems.landscapes import FLOOR
from sde_mtl.random import MASK, key_words
from sde_mtl.simulation.dynamics import Dynamics, LinearSDE, Recursion

DIVERGED = 1e12
"""A path with a coordinate of this size has left every bound."""
CALL = 2**30
"""Multiply-adds of one call, about: what a core does in less than a second."""
THREADED = 2**21
"""Multiply-adds that are worth a thread."""


@dataclass(frozen=True)
class FusedSteps:
    """A compiled loop over steps with its constants; made by :func:`fuse`.

    Attributes:
        kernel: of :mod:`sde_mtl.simulation.step_kernels`.
        constants: its last arguments.
        dtype: of θ.
        work: multiply-adds of one step of one path, about.
    """

    kernel: Any
    constants: tuple[Any, ...]
    dtype: torch.dtype
    work: int

    def steps_per_call(self, paths: int) -> int:
        """As many steps of ``paths`` paths as take a fraction of a second."""
        return max(1, CALL // (paths * self.work))

    def advance(self, theta: Tensor, alive: Tensor, first_path: int, step: int, count: int, seed: int) -> None:
        """Advance consecutive paths by ``count`` steps, in place, on ``torch.get_num_threads()`` threads.

        A path with a coordinate that is NaN or ≥ 1e12 in size stays at 0 from that step on and is no longer alive.
        The result does not depend, bitwise, on the number of threads, on the other paths or on how steps are divided
        into calls.

        Args:
            theta: (n, d) contiguous, on the CPU, of the dtype for which the steps were fused.
            alive: (n,) bool.
            first_path: number of the first path.
            step: number of the first step.
            count: of steps.
            seed: of the noise.

        Raises:
            ValueError: for another dtype or device, or numbers beyond 32 bits.
        """
        if theta.dtype != self.dtype or theta.device.type != "cpu" or not theta.is_contiguous():
            raise ValueError(f"theta must be contiguous {self.dtype} on the CPU, got {theta.dtype} on {theta.device}")
        for name, last in (("step", step + count), ("path", first_path + len(theta))):
            if not 0 <= last <= MASK + 1:
                raise ValueError(f"{name} = {last - 1} must lie in 0 … 2^32 - 1")
        x, live, constants = theta.numpy(), alive.numpy(), self.constants
        keys = tuple(np.uint32(word) for word in key_words(seed))
        bound = x.dtype.type(DIVERGED)
        in_threads(
            lambda first, last: self.kernel(
                x[first:last], live[first:last], first_path + first, step, count, keys, bound, *constants
            ),
            len(x),
            shortest=max(64, THREADED // (count * self.work)),
        )


def fuse(dynamics: Dynamics, dtype: torch.dtype = torch.float64) -> FusedSteps | None:
    """The compiled steps of a dynamics, or None if it has none.

    There are kernels for :class:`sde_mtl.LinearSDE`; for :class:`sde_mtl.Recursion` with
    :class:`sde_mtl.AdditiveNoise` and ``linear`` on a :class:`sde_mtl.Quadratic`; and with two tasks for ``linear`` and
    ``came_grad_coefficients`` (also as ``functools.partial`` with options) on a :class:`sde_mtl.Quadratic`,
    :class:`sde_mtl.DoubleWell` or :class:`sde_mtl.CAGradToy`. Subclasses may override anything, so they have none.

    Args:
        dynamics: of these exact classes.
        dtype: of θ, float32 or float64.

    Raises:
        ValueError: for weights or options that the aggregator refuses.

    Example:
        >>> problem = Quadratic([[[1.0]], [[3.0]]], [[1.0], [-1.0]])
        >>> steps = fuse(LinearSDE(problem, AdditiveNoise.correlated([0.0, 0.0]), [1.0, 1.0], learning_rate=0.1))
        >>> theta = torch.zeros(1, 1).double()
        >>> steps.advance(theta, torch.ones(1).bool(), first_path=0, step=0, count=2, seed=0)
        >>> theta
        tensor([[-0.3200]], dtype=torch.float64)
    """
    if dtype not in (torch.float32, torch.float64):
        return None
    if type(dynamics) is LinearSDE:
        return _linear(dynamics.problem, dynamics.task_weights, dynamics.time_step, dynamics.factor, dtype, pairs=True)
    if type(dynamics) is not Recursion or type(dynamics.noise) is not AdditiveNoise:
        return None
    dynamics.aggregator(torch.eye(dynamics.problem.tasks).double(), dynamics.task_weights)  # refuses bad options
    options = _came_grad_options(dynamics.aggregator)
    if type(dynamics.problem) is Quadratic and dynamics.aggregator is linear:
        eta, weights = dynamics.learning_rate, dynamics.task_weights
        factor = dynamics.noise.factor.reshape(dynamics.noise.tasks, dynamics.dimension, -1)
        return _linear(dynamics.problem, weights, eta, -eta * torch.einsum("k,kan->an", weights, factor), dtype)
    if dynamics.problem.tasks != 2 or (options is None and dynamics.aggregator is not linear):
        return None
    return _recursion(dynamics, dynamics.noise, options, dtype)


def _linear(
    problem: Quadratic, weights: Tensor, time_step: float, noise: Tensor, dtype: torch.dtype, *, pairs: bool = False
) -> FusedSteps:
    from sde_mtl.simulation.step_kernels import advance_linear

    pull = torch.einsum("k,kab,kb->a", weights, problem.curvatures, problem.centres)
    offset = (time_step * pull).to(dtype).numpy()
    drift = _sparse(-time_step * problem.hessian(weights), dtype)
    diffusion = _sparse(noise, dtype)
    constants = (offset, *drift), (noise.shape[1], pairs and noise.shape[1] <= 2, *diffusion)
    return FusedSteps(advance_linear, constants, dtype, _work(noise.shape[1], drift, diffusion))


def _recursion(
    dynamics: Recursion, noise: AdditiveNoise, options: CAMEGradOptions | None, dtype: torch.dtype
) -> FusedSteps | None:
    from sde_mtl.simulation import gradient_kernels
    from sde_mtl.simulation.step_kernels import advance_recursion

    problem: Problem = dynamics.problem
    d = problem.dimension
    parameters, centres, curvatures = np.zeros(4), torch.zeros(2, d), torch.zeros(2, d, d)
    if type(problem) is Quadratic:
        kind, centres, curvatures = gradient_kernels.QUADRATIC, problem.centres, problem.curvatures
    elif type(problem) is DoubleWell:
        kind = gradient_kernels.DOUBLE_WELL
        parameters = np.array([problem.height, problem.sharp, problem.flat, problem.offset], np.float64)
    elif type(problem) is CAGradToy:
        kind, parameters = gradient_kernels.CAGRAD_TOY, np.full(4, FLOOR)
    else:
        return None
    matrix, factor = _sparse(torch.block_diag(*curvatures), dtype), _sparse(noise.factor, dtype)
    rule = (
        dynamics.learning_rate,
        dynamics.task_weights.numpy(),
        options is not None,
        (options or DEFAULTS).numbers(),
    )
    constants = (kind, parameters, centres.reshape(-1).to(dtype).numpy(), *matrix), factor, rule
    return FusedSteps(advance_recursion, constants, dtype, 128 + _work(2 * d, matrix, factor))


def _came_grad_options(aggregator: Aggregator) -> CAMEGradOptions | None:
    """Its options if the aggregator is CAME-Grad, else None."""
    options: dict[str, Any] = {}
    if isinstance(aggregator, partial):
        if aggregator.args or not aggregator.keywords.keys() <= vars(DEFAULTS).keys():
            return None
        options = aggregator.keywords
        aggregator = aggregator.func
    return CAMEGradOptions(**options) if aggregator is came_grad_coefficients else None


def _sparse(matrix: Tensor, dtype: torch.dtype) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Compressed sparse rows: values, columns, starts. A diagonal or triangular matrix costs what it has."""
    rows, columns = matrix.nonzero(as_tuple=True)
    starts = torch.zeros(len(matrix) + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(rows, minlength=len(matrix)).cumsum(0)
    return matrix[rows, columns].to(dtype).numpy(), columns.numpy(), starts.numpy()


def _work(normals: int, *matrices: tuple[NDArray[Any], ...]) -> int:
    return 64 * math.ceil(normals / 4) + sum(len(values) for values, *_ in matrices)
