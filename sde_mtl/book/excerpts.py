"""A gradient log without its projections, as one small JSON file: losses and Gramian of every step."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sde_mtl.gradient_logs import GradientLog, GradientLogError

DIGITS = 9
KIND = "gradient-log-excerpt"


def excerpt(log: GradientLog) -> dict[str, Any]:
    """The content of an excerpt's file, which :func:`read_excerpt` reads back: plain values of nine significant digits.

    Args:
        log: whose steps are kept; projections and frozen sets are left out.
    """
    return {
        "format": KIND,
        "meta": log.meta,
        "steps": log.steps.tolist(),
        "losses": _rounded(log.losses),
        "gramian": _rounded(log.gramian),
    }


def read_excerpt(path: str | Path) -> GradientLog:
    """A log of the steps in an excerpt, with empty projections and without frozen sets.

    Args:
        path: of the JSON file.

    Raises:
        GradientLogError: if the file is no excerpt.

    Example:
        >>> from sde_mtl.book import kept_result
        >>> log = read_excerpt(kept_result("gradient-log-excerpt.json"))
        >>> log.tasks, log.gramian.shape
        (('rg', 'dc', 'ita', 're'), (150, 4, 4))
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != KIND:
            raise ValueError(f"format {content['format']!r}")
        meta, gramian = content["meta"], np.asarray(content["gramian"], np.float64)
        steps, losses = np.asarray(content["steps"], np.int64), np.asarray(content["losses"], np.float64)
        tasks = tuple(meta["tasks"])
        if losses.shape != (len(steps), len(tasks)) or gramian.shape != (*losses.shape, len(tasks)):
            raise ValueError(f"losses of shape {losses.shape}, Gramians of shape {gramian.shape}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GradientLogError(f"{path} is no excerpt of a gradient log: {error!r}") from error
    projected = np.zeros((len(steps), len(tasks), 0), np.float32)
    weights = np.asarray(meta["task_weights"], np.float64)
    return GradientLog(path, meta, tasks, weights, steps, losses, gramian, projected, frozen=())


def _rounded(values: NDArray[np.float64]) -> Any:
    return np.vectorize(lambda x: float(f"{x:.{DIGITS}g}"))(values).tolist()
