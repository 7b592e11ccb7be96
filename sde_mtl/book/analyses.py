"""Analyses of gradient logs read back from the ``analysis.json`` of ``sde-mtl analyze --out``."""

import json
from pathlib import Path
from typing import Any

from sde_mtl.gradient_logs import Descent, Diffusion, Distortion, Effective, EmpiricalSDE, Interval, LogAnalysis


class AnalysisError(ValueError):
    """The file is no analysis; the message names it and says what to do."""


def read_analyses(path: str | Path) -> list[LogAnalysis]:
    """The analyses of a file, one each log.

    Args:
        path: of an ``analysis.json``.

    Raises:
        AnalysisError: if it cannot be read, or was not written by ``sde-mtl analyze``.

    Example:
        >>> from sde_mtl.book import kept_result
        >>> [analysis.name for analysis in read_analyses(kept_result("analysis-demo.json"))]
        ['linear', 'came-grad']
    """
    try:
        return [_log(entry) for entry in json.loads(Path(path).read_text(encoding="utf-8"))["logs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnalysisError(f"{path} is no output of 'sde-mtl analyze LOG --out DIR': {error!r}") from error


def _interval(value: Any) -> Any:
    return Interval(**value) if isinstance(value, dict) and set(value) == {"value", "low", "high"} else value


def _fields(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: _interval(value) for key, value in entry.items()}


def _log(entry: dict[str, Any]) -> LogAnalysis:
    by_pair = {key: Interval(**value) for key, value in entry["conflict_by_pair"].items()}
    points = []
    for point in entry["empirical"]:
        effective = [Effective(**_fields(e)) for e in point["effective"]]
        descent = [Descent(**d) for d in point["descent"]]
        points.append(EmpiricalSDE(**{**_fields(point), "effective": effective, "descent": descent}))
    read = {
        "conflict_by_pair": by_pair,
        "diffusion": [Diffusion(**_fields(d)) for d in entry["diffusion"]],
        "distortion": Distortion(**entry["distortion"]),
        "empirical": points,
    }
    return LogAnalysis(**{**_fields(entry), **read})
