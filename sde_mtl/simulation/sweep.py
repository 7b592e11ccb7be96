"""Simulations over a grid of parameters, described by a TOML file, run by joblib, kept as one tidy Parquet file.

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
import hashlib
import itertools
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.progress import Progress

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
from sde_mtl.simulation._simulate import DivergedWarning, recorded_steps, simulate
from sde_mtl.simulation.dynamics import Dynamics, EffectiveSDE, LinearSDE, Recursion

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
DYNAMICS = ("recursion", "effective-sde", "linear-sde")
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
            _build(point)
        except (TypeError, ValueError, KeyError) as error:
            at = ", ".join(f"{n} = {v}" for n, v in zip(grid, values, strict=True))
            raise SweepError(f"{path}, at {at or 'its only point'}: {_told(error)}") from error
        points.append(point)
    return Sweep(tuple(grid), tuple(points))


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    jobs: int = -1,
    backend: str = "loky",
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """Run what is missing and write the Parquet file.

    Each point is kept in ``OUT.parts/`` as it ends, and a second call runs only what is not there.

    Args:
        sweep: from :func:`read_sweep`.
        out: Parquet file; one row per point, recorded step and coordinate.
        jobs: worker processes; −1 for one a core.
        backend: of joblib: "loky", "threading", or "dask".
        scheduler: address of a Dask scheduler, with backend "dask".
        progress: a running rich progress display.

    Raises:
        SweepError: if a scheduler is missing or there without Dask.
    """
    if (backend == "dask") != (scheduler is not None):
        raise SweepError("--backend dask and --scheduler ADDRESS belong together")
    parts = out.with_name(out.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    names = [parts / f"{_digest(point)}.parquet" for point in sweep.points]
    todo = [(point, name) for point, name in zip(sweep.points, names, strict=True) if not _whole(name)]
    task = None
    if progress is not None:
        task = progress.add_task("points", total=len(names), completed=len(names) - len(todo))
    for point, rows in _results(todo, jobs, backend, scheduler):
        _write(pa.Table.from_pylist(rows), parts / f"{_digest(point)}.parquet")
        if progress is not None and task is not None:
            progress.advance(task)
    tables = []
    for point, name in zip(sweep.points, names, strict=True):
        part = pq.read_table(name)
        for at, swept in enumerate(sweep.swept):
            table, key = swept.split(".")
            part = part.add_column(at, swept, pa.array([_cell(point[table][key])] * len(part)))
        tables.append(part)
    whole = pa.concat_tables(tables, promote_options="permissive")
    content = json.dumps({"points": sweep.points, "torch": torch.__version__})
    whole = whole.replace_schema_metadata({"sde_mtl.sweep": content})
    _write(whole, out)
    shutil.rmtree(parts)
    return whole


def run_point(point: Point) -> list[dict[str, float | int]]:
    """Simulate one point: a row per recorded step and coordinate.

    Columns: step, time, coordinate, mean, mean_error, variance, variance_error, paths, diverged, and with a target
    passage_rate, passage_rate_error (per unit of time), arrived (share of paths).
    """
    dynamics, run = _build(point)
    target, steps = run.get("target"), run["steps"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DivergedWarning)  # the column says it
            ensemble = simulate(
                dynamics,
                run["initial"],
                steps,
                paths=run.get("paths", 10_000),
                seed=run.get("seed", 0),
                record=recorded_steps(steps, run["record"]) if "record" in run else None,
                target=None if target is None else _Above(**target),
            )
    finally:
        torch.set_num_threads(threads)
    more: dict[str, float | int] = {}
    if ensemble.passage is not None:
        rate, error = ensemble.passage_rate()
        arrived = float((ensemble.passage >= 0).double().mean())
        more = {"passage_rate": rate, "passage_rate_error": error, "arrived": arrived}
    mean_error, covariance_error = ensemble.mean_error(), ensemble.covariance_error()
    return [
        {
            "step": int(step),
            "time": float(ensemble.times[at]),
            "coordinate": axis,
            "mean": float(ensemble.mean[at, axis]),
            "mean_error": float(mean_error[at, axis]),
            "variance": float(ensemble.covariance[at, axis, axis]),
            "variance_error": float(covariance_error[at, axis, axis]),
            "paths": ensemble.paths,
            "diverged": ensemble.diverged,
            **more,
        }
        for at, step in enumerate(ensemble.steps)
        for axis in range(dynamics.dimension)
    ]


@dataclass(frozen=True)
class _Above:
    """θ_coordinate > above, a first-passage target."""

    coordinate: int
    above: float

    def __call__(self, theta: torch.Tensor) -> torch.Tensor:
        return theta[:, self.coordinate] > self.above


def _build(point: Point) -> tuple[Dynamics, dict[str, Any]]:
    """The dynamics of a point and its [run] table; raises for whatever is wrong with it."""
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
    name = options.pop("name", None)
    chosen = aggregator(name, **options)
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
        _Above(**run["target"])
    kind = run.get("dynamics", "recursion")
    time_step = {"time_step": run["time_step"]} if "time_step" in run else {}
    if kind not in DYNAMICS:
        raise ValueError(f"run.dynamics = {kind!r} must be one of {', '.join(DYNAMICS)}")
    if kind == "recursion":
        if time_step:
            raise ValueError("run.time_step belongs to the SDEs; the recursion's is its learning rate")
        return Recursion(problem, noise, chosen, run["task_weights"], run["learning_rate"]), run
    if kind == "effective-sde":
        parts = problem, noise, chosen, run["task_weights"], run["learning_rate"]
        return EffectiveSDE(*parts, **time_step), run
    if name != "linear" or not isinstance(problem, Quadratic) or not isinstance(noise, AdditiveNoise):
        raise ValueError('run.dynamics = "linear-sde" needs the linear aggregator, a quadratic and additive noise')
    return LinearSDE(problem, noise, run["task_weights"], run["learning_rate"], **time_step), run


def _choose(kind: Any, known: dict[str, Callable[..., Problem]], name: str) -> Callable[..., Problem]:
    if kind not in known:
        raise ValueError(f"{name} = {kind!r} must be one of {', '.join(known)}")
    return known[kind]


def _told(error: Exception) -> str:
    return f"missing {error}" if isinstance(error, KeyError) else str(error)


def _results(
    todo: list[tuple[Point, Path]], jobs: int, backend: str, scheduler: str | None
) -> Iterator[tuple[Point, list[dict[str, float | int]]]]:
    calls = (joblib.delayed(_paired)(point) for point, _ in todo)
    if backend != "dask":
        yield from joblib.Parallel(jobs, backend=backend, return_as="generator_unordered")(calls)
        return
    from distributed import Client  # the `dask` extra

    with Client(scheduler) as client, joblib.parallel_config(backend="dask", client=client):
        yield from joblib.Parallel(return_as="generator_unordered")(calls)


def _paired(point: Point) -> tuple[Point, list[dict[str, float | int]]]:
    return point, run_point(point)


def _digest(point: Point) -> str:
    return hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:20]


def _whole(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return True


def _write(table: pa.Table, path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, path)


def _cell(value: Any) -> Any:
    """Numbers and words as they are; a list or table as JSON, so that the column stays flat."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)
