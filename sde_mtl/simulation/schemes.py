"""Dynamics by the name of their scheme, as command lines and sweep files give it."""

from numpy.typing import ArrayLike
from torch import Tensor

from optimizers import linear
from optimizers.aggregators.base import Aggregator
from sde_mtl.problems import AdditiveNoise, GradientNoise, Problem, Quadratic
from sde_mtl.simulation.dynamics import Dynamics, EffectiveSDE, LinearSDE, Recursion

SCHEMES = {"recursion": Recursion, "effective-sde": EffectiveSDE, "linear-sde": LinearSDE}


def build_dynamics(
    scheme: str,
    problem: Problem,
    noise: GradientNoise,
    aggregator: Aggregator,
    task_weights: Tensor | ArrayLike,
    learning_rate: float,
    *,
    time_step: float | None = None,
) -> Dynamics:
    """The training loop, its effective SDE, or the SDE of linear scalarization.

    Args:
        scheme: a key of :data:`SCHEMES`.
        problem, noise, aggregator, task_weights, learning_rate: as in :class:`sde_mtl.Recursion`.
        time_step: dt of an SDE; the learning rate by default.

    Raises:
        ValueError: for an unknown scheme, a time step of the recursion, anything but linear scalarization on quadratics
            with additive noise for "linear-sde", and as the classes themselves.

    Example:
        >>> problem = Quadratic([[[1.0]], [[3.0]]], [[1.0], [-1.0]])
        >>> noise = AdditiveNoise.correlated([1.0, 1.0])
        >>> build_dynamics("linear-sde", problem, noise, linear, [1.0, 1.0], 0.1, time_step=0.01).time_step
        0.01
    """
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}; there are {', '.join(SCHEMES)}")
    if scheme == "recursion":
        if time_step is not None:
            raise ValueError("time_step belongs to the SDEs; the recursion's is its learning rate")
        return Recursion(problem, noise, aggregator, task_weights, learning_rate)
    if scheme == "effective-sde":
        return EffectiveSDE(problem, noise, aggregator, task_weights, learning_rate, time_step=time_step)
    of_sum = getattr(aggregator, "func", aggregator) is linear  # also as functools.partial
    if not of_sum or not isinstance(problem, Quadratic) or not isinstance(noise, AdditiveNoise):
        raise ValueError("linear-sde needs the linear aggregator, a quadratic and additive noise")
    return LinearSDE(problem, noise, task_weights, learning_rate, time_step=time_step)
