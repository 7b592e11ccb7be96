"""Differences between trained report generators, read from the results of ``benchmarks/report_generators.py``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

from sde_mtl.figures.style import BLUE, GREY, RED, canvas

RENAMED = {"any conflict with first": "conflict rate"}
"""Quantities of the gradient logs, and their names in results from before."""


@dataclass(frozen=True)
class Difference:
    """One optimizer against another, paired by seed.

    Attributes:
        optimizer: its name with options.
        by_seed: optimizer minus the other, one each seed.
        mean, error: of them, with the standard error.
        low, high: the 95 % t-interval of the mean.
    """

    optimizer: str
    by_seed: tuple[float, ...]
    mean: float
    error: float
    low: float
    high: float

    def __str__(self) -> str:
        """Mean and interval, three decimals."""
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]".replace("-", "−")


def read_training(path: str | Path) -> dict[str, Any]:
    """Contents of a result file.

    Args:
        path: of the JSON file that the benchmark wrote.
    """
    return dict(json.loads(Path(path).read_text(encoding="utf-8")))


def differences(result: Mapping[str, Any], metric: str, against: str | None = None) -> list[Difference]:
    """Every optimizer but one, in the order of the file.

    Args:
        result: from :func:`read_training`.
        metric: such as "validation loss rg" or "BLEU-4".
        against: the one that is subtracted; the result's control by default.

    Raises:
        KeyError: if there is no such metric, with those there are.

    Example:
        >>> runs = {"a": {"0": {"x": 1.0}, "1": {"x": 2.0}}, "b": {"0": {"x": 3.0}, "1": {"x": 5.0}}}
        >>> rows = [{"optimizer": name, "runs": seeds} for name, seeds in runs.items()]
        >>> [row] = differences({"control": "a", "optimizers": rows}, "x")
        >>> row.optimizer, row.by_seed, row.mean, row.error, round(row.high, 3)
        ('b', (2.0, 3.0), 2.5, 0.5, 8.853)
    """
    runs = {row["optimizer"]: row["runs"] for row in result["optimizers"]}
    other = runs.pop(against or result["control"])
    known = sorted(next(iter(other.values())))
    if metric not in known:
        raise KeyError(f"no metric {metric!r}; there are {', '.join(known)}")
    rows = []
    for name, seeds in runs.items():
        paired = np.array([seeds[seed][metric] - other[seed][metric] for seed in seeds if seed in other])
        mean, error = float(paired.mean()), float(paired.std(ddof=1) / len(paired) ** 0.5)
        half = float(student.ppf(0.975, len(paired) - 1)) * error
        rows.append(Difference(name, tuple(paired.tolist()), mean, error, mean - half, mean + half))
    return rows


NAMES = {
    "linear": "LS at ω",
    "linear:task_weights=equal": "LS, equal weights",
    "replay-mean(came-grad)": "LS at the mean c̄",
    "replay(came-grad)": "LS at c̄(t) of other seeds",
    "linear:clip_norm=0:clip_value=0.1": "LS at ω, entries clipped",
    "came-grad:clip_norm=0": "CAME-Grad, not clipped",
    "came-grad": "CAME-Grad",
    "came-grad:center=weighted": "CAME-Grad, weighted centre",
    "came-grad:track=0.99": "CAME-Grad, tracked",
}
"""Optimizers as figures and tables have them."""


def short(name: str) -> str:
    """An optimizer's name as it fits beside a figure.

    Example:
        >>> short("came-grad:center=weighted"), short("cagrad")
        ('CAME-Grad, weighted centre', 'cagrad')
    """
    return NAMES.get(name, name)


def forest(result: Mapping[str, Any], metrics: Sequence[str], against: str | None = None) -> Figure:
    """Differences from one optimizer, a panel each metric: every seed, and the mean with its 95 % t-interval.

    Args:
        result: from :func:`read_training`.
        metrics, against: as in :func:`differences`.
    """
    with canvas(8.2, 3.5, columns=len(metrics), sharey=True) as (figure, axes):
        for axis, metric in zip(axes, metrics, strict=True):
            rows = differences(result, metric, against)
            places = np.arange(len(rows))[::-1]
            for place, row in zip(places, rows, strict=True):
                colour = GREY if row.low <= 0 <= row.high else BLUE if row.mean < 0 else RED
                axis.plot(row.by_seed, [place - 0.22] * len(row.by_seed), ".", ms=4, color=colour, alpha=0.6)
                axis.plot([row.low, row.high], [place, place], lw=1.6, color=colour)
                axis.plot(row.mean, place, "o", ms=5, color=colour)
            axis.axvline(0, color=GREY, lw=0.9)
            axis.set_yticks(places, [short(row.optimizer) for row in rows], fontsize=9)
            axis.set_title(metric, fontsize=9.5, loc="left")
        figure.supxlabel(f"difference from {short(against or result['control'])}, paired by seed", fontsize=9.5)
        return figure
