"""Simulations over the grid of a sweep file, run by joblib or Dask, kept as one tidy Parquet file."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.progress import Progress

from optimizers.files import whole
from sde_mtl.simulation._simulate import DivergedWarning, recorded_steps, simulate
from sde_mtl.simulation.sweep_file import Above, Point, Sweep, SweepError, build


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
        sweep: from :func:`sde_mtl.simulation.sweep_file.read_sweep`.
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
    todo = [(point, name) for point, name in zip(sweep.points, names, strict=True) if not _readable(name)]
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
            section, key = swept.split(".")
            part = part.add_column(at, swept, pa.array([_cell(point[section][key])] * len(part)))
        tables.append(part)
    content = json.dumps({"points": sweep.points, "torch": torch.__version__})
    table = pa.concat_tables(tables, promote_options="permissive").replace_schema_metadata({"sde_mtl.sweep": content})
    _write(table, out)
    shutil.rmtree(parts)
    return table


def run_point(point: Point) -> list[dict[str, float | int]]:
    """Simulate one point: a row per recorded step and coordinate.

    Columns: step, time, coordinate, mean, mean_error, variance, variance_error, paths, diverged, and with a target
    passage_rate, passage_rate_error (per unit of time), arrived (share of paths).
    """
    dynamics, run = build(point)
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
                target=None if target is None else Above(**target),
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


def _readable(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return True


def _write(table: pa.Table, path: Path) -> None:
    with whole(path) as temporary:
        pq.write_table(table, temporary)


def _cell(value: Any) -> Any:
    """Numbers and words as they are; a list or table as JSON, so that the column stays flat."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)
