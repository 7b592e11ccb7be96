"""Analyses of gradient logs read back from the ``analysis.json`` of ``sde-mtl analyze --out``."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from sde_mtl.gradient_logs import (
    Descent,
    Diffusion,
    Distortion,
    Effective,
    EmpiricalSDE,
    Estimate,
    FrozenProducts,
    Interval,
    LogAnalysis,
    ScopeAnalysis,
)


class AnalysisError(ValueError):
    """The file is no analysis; the message names it and says what to do."""


def read_analyses(path: str | Path) -> list[LogAnalysis]:
    """The analyses of a file, one each log; what was not yet measured when the file was written is None or empty.

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


_KINDS: dict[frozenset[str], Any] = {
    frozenset(field.name for field in fields(kind)): kind for kind in (Interval, Estimate)
}


def _value(value: Any) -> Any:
    """The value with its intervals and estimates restored, at any depth; what JSON has no number for is NaN there."""
    if isinstance(value, list):
        return [_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = _KINDS.get(frozenset(value))
    if kind is not None:
        return kind(**{key: float("nan") if number is None else number for key, number in value.items()})
    return {key: _value(item) for key, item in value.items()}


def _log(entry: dict[str, Any]) -> LogAnalysis:
    read = _value(entry)
    if "conflict_rate" in read:  # its name when there was no other
        read["any_conflict_with_first"] = read.pop("conflict_rate")
    for point in read["empirical"]:
        point["effective"] = [Effective(**e) for e in point["effective"]]
        point["descent"] = [Descent(**d) for d in point["descent"]]
    read["diffusion"] = [Diffusion(**d) for d in read["diffusion"]]
    read["distortion"] = Distortion(**read["distortion"])
    read["empirical"] = [EmpiricalSDE(**point) for point in read["empirical"]]
    read["scopes"] = {name: _scope(scope) for name, scope in read.get("scopes", {}).items()}
    return LogAnalysis(**read)


def _scope(read: dict[str, Any]) -> ScopeAnalysis:
    frozen = [FrozenProducts(**products) for products in read["frozen"]]
    return ScopeAnalysis(**{**read, "diffusion": [Diffusion(**d) for d in read["diffusion"]], "frozen": frozen})
