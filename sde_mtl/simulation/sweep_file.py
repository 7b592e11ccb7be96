"""The file of a sweep: a grid of parameters in TOML, read and checked point by point.

The file has the tables ``[problem]``, ``[noise]``, ``[aggregator]``, ``[run]`` and ``[sweep]``; keys of the last name a
parameter of the others, such as ``"aggregator.nu" = [0.1, 0.6]``, and the grid is the product of their values::

    [problem]
    kind = "quadratic"
    curvatures = [[[1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, 0.7]]]
    centres = [[1.0, 0.0], [-1.0, 0.5]]
    [noise]
    kind = "additive"
    variances = [1.0, 1.0]
    [aggregator]
    name = "came-grad"
    [run]
    task_weights = [1.0, 4.0]
    initial = [2.0, 2.0]
    learning_rate = 0.01
    steps = 500
    paths = 2000
    [sweep]
    "aggregator.nu" = [0.2, 0.6]
    "noise.correlation" = [-0.6, 0.0]
"""

import copy
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optimizers.aggregators.by_name import aggregator
from sde_mtl.problems import (
    AdditiveNoise,
    CAGradToy,
    DoubleWell,
    FiniteSumRegression,
    GradientNoise,
    MinibatchNoise,
    Problem,
    Quadratic,
)
from sde_mtl.simulation.dynamics import Dynamics
from sde_mtl.simulation.schemes import SCHEMES, build_dynamics

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROBLEMS: dict[str, Callable[..., Problem]] = {
    "quadratic": Quadratic,
    "cagrad-toy": CAGradToy,
    "double-well": DoubleWell,
    "regression": FiniteSumRegression.random,
}
NOISES = ("additive", "minibatch")
TABLES = ("problem", "noise", "aggregator", "run", "sweep")
RUN = {
    "dynamics",
    "task_weights",
    "initial",
    "learning_rate",
    "time_step",
    "steps",
    "paths",
    "seed",
    "record",
    "target",
}
Point = dict[str, Any]
"""One point of the grid: the tables with the swept values put in."""


class SweepError(ValueError):
    """A sweep file that cannot be run; the message names the table and key."""


@dataclass(frozen=True)
class Sweep:
    """A grid of simulations.

    Attributes:
        swept: names of the swept parameters, "table.key".
        points: of the grid, each checked.
    """

    swept: tuple[str, ...]
    points: tuple[Point, ...]


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file and build every point once, so that a bad value is told before any work is done.

    Raises:
        SweepError: naming the file, the point and the value.
    """
    try:
        config = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise SweepError(f"{path} is missing") from error
    except tomllib.TOMLDecodeError as error:
        raise SweepError(f"{path} is no TOML: {error}") from error
    unknown = sorted(config.keys() - set(TABLES))
    if unknown:
        raise SweepError(f"{path}: unknown tables {unknown}; there are {', '.join(TABLES)}")
    missing = [table for table in ("problem", "noise", "aggregator", "run") if table not in config]
    if missing:
        raise SweepError(f"{path} lacks the tables {missing}")
    grid = config.pop("sweep", {})
    for name, values in grid.items():
        if name.count(".") != 1 or name.split(".")[0] not in TABLES[:4]:
            raise SweepError(f'{path}: [sweep] {name!r} must be "table.key" with a table of {", ".join(TABLES[:4])}')
        if not isinstance(values, list) or not values:
            raise SweepError(f"{path}: [sweep] {name!r} must be a list of values, got {values!r}")
    points = []
    for values in itertools.product(*grid.values()):
        point = copy.deepcopy(config)
        for name, value in zip(grid, values, strict=True):
            table, key = name.split(".")
            point[table][key] = value
        try:
            build(point)
        except (TypeError, ValueError, KeyError) as error:
            at = ", ".join(f"{n} = {v}" for n, v in zip(grid, values, strict=True))
            raise SweepError(f"{path}, at {at or 'its only point'}: {_told(error)}") from error
        points.append(point)
    return Sweep(tuple(grid), tuple(points))


@dataclass(frozen=True)
class Above:
    """θ_coordinate > above, a first-passage target."""

    coordinate: int
    above: float

    def __call__(self, theta: torch.Tensor) -> torch.Tensor:
        return theta[:, self.coordinate] > self.above


def build(point: Point) -> tuple[Dynamics, dict[str, Any]]:
    """The dynamics of a point and its [run] table.

    Raises:
        KeyError, TypeError, ValueError: for whatever is wrong with the point; :func:`read_sweep` tells where.
    """
    options = dict(point["problem"])
    problem = _choose(options.pop("kind", None), PROBLEMS, "problem.kind")(**options)
    options = dict(point["noise"])
    kind = options.pop("kind", None)
    if kind not in NOISES:
        raise ValueError(f"noise.kind = {kind!r} must be one of {', '.join(NOISES)}")
    noise: GradientNoise
    if kind == "minibatch":
        if not isinstance(problem, FiniteSumRegression):
            raise ValueError('noise.kind = "minibatch" needs problem.kind = "regression"')
        noise = MinibatchNoise(problem, **options)
    else:
        noise = AdditiveNoise.correlated(**{"dimension": problem.dimension, **options})
    options = dict(point["aggregator"])
    chosen = aggregator(options.pop("name"), **options)
    run = dict(point["run"])
    unknown = sorted(run.keys() - RUN)
    if unknown:
        raise ValueError(f"[run] has no {', '.join(unknown)}; it has {', '.join(sorted(RUN))}")
    lacking = [key for key in ("task_weights", "initial", "learning_rate", "steps") if key not in run]
    if lacking:
        raise ValueError(f"[run] lacks {', '.join(lacking)}")
    if len(run["task_weights"]) != problem.tasks or len(run["initial"]) != problem.dimension:
        raise ValueError(
            f"run.task_weights must be {problem.tasks} and run.initial {problem.dimension} numbers for this problem, "
            f"got {run['task_weights']} and {run['initial']}"
        )
    if run["steps"] < 1 or run.get("paths", 2) < 2:
        raise ValueError(f"run.steps = {run['steps']} must be >= 1 and run.paths = {run.get('paths')} >= 2")
    if "target" in run:
        Above(**run["target"])
    kind = run.get("dynamics", "recursion")
    if kind not in SCHEMES:
        raise ValueError(f"run.dynamics = {kind!r} must be one of {', '.join(SCHEMES)}")
    parts = problem, noise, chosen, run["task_weights"], run["learning_rate"]
    return build_dynamics(kind, *parts, time_step=run.get("time_step")), run


def _choose(kind: Any, known: dict[str, Callable[..., Problem]], name: str) -> Callable[..., Problem]:
    if kind not in known:
        raise ValueError(f"{name} = {kind!r} must be one of {', '.join(known)}")
    return known[kind]


def _told(error: Exception) -> str:
    return f"missing {error}" if isinstance(error, KeyError) else str(error)
