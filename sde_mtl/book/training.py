"""Differences between trained report generators, read from the results of ``benchmarks/report_generators.py``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sde_mtl.figures.style import BLUE, GREY, RED, canvas

RENAMED = {"any conflict with first": "conflict rate"}
"""Quantities of the gradient logs, and their names in results from before."""


@dataclass(frozen=True)
class Difference:
    """One optimizer against the control, paired by seed.

    Attributes:
        optimizer: its name with options.
        by_seed: optimizer minus control, one each seed.
        mean, error: of them, with the standard error.
    """

    optimizer: str
    by_seed: tuple[float, ...]
    mean: float
    error: float


def read_training(path: str | Path) -> dict[str, Any]:
    """Contents of a result file.

    Args:
        path: of the JSON file that the benchmark wrote.
    """
    return dict(json.loads(Path(path).read_text(encoding="utf-8")))


def differences(result: Mapping[str, Any], metric: str) -> list[Difference]:
    """Every optimizer but the control, in the order of the file.

    Args:
        result: from :func:`read_training`.
        metric: such as "loss rg" or "BLEU-4".

    Raises:
        KeyError: if there is no such metric, with those there are.

    Example:
        >>> runs = {"a": {"0": {"x": 1.0}, "1": {"x": 2.0}}, "b": {"0": {"x": 3.0}, "1": {"x": 5.0}}}
        >>> rows = [{"optimizer": name, "runs": seeds} for name, seeds in runs.items()]
        >>> differences({"control": "a", "optimizers": rows}, "x")
        [Difference(optimizer='b', by_seed=(2.0, 3.0), mean=2.5, error=0.5)]
    """
    runs = {row["optimizer"]: row["runs"] for row in result["optimizers"]}
    control = runs.pop(result["control"])
    known = sorted(next(iter(control.values())))
    if metric not in known:
        raise KeyError(f"no metric {metric!r}; there are {', '.join(known)}")
    rows = []
    for name, seeds in runs.items():
        paired = np.array([seeds[seed][metric] - control[seed][metric] for seed in seeds])
        error = float(paired.std(ddof=1) / len(paired) ** 0.5)
        rows.append(Difference(name, tuple(paired.tolist()), float(paired.mean()), error))
    return rows


def over_runs(result: Mapping[str, Any], quantity: str) -> list[float]:
    """A quantity of the gradient logs of all runs, flattened over the checkpoints where it has several.

    Args:
        result: from :func:`read_training`.
        quantity: such as "any conflict with first" or "diffusion ratio".

    Example:
        >>> seeds = [{"diffusion ratio": {"15": 1.2, "75": 1.5}}]
        >>> over_runs({"optimizers": [{"gradients": {"seeds": seeds}}]}, "diffusion ratio")
        [1.2, 1.5]
    """
    runs = [seed for row in result["optimizers"] for seed in row["gradients"]["seeds"]]
    values = [run[RENAMED[quantity] if quantity not in run and quantity in RENAMED else quantity] for run in runs]
    return [x for v in values for x in (v.values() if isinstance(v, dict) else [v])]


def short(name: str) -> str:
    """An optimizer's name as it fits beside a figure.

    Example:
        >>> short("came-grad:kappa=1.5:nu=0.2:center=mean")
        'κ = 1.5, ν = 0.2, mean'
    """
    kind, *options = name.split(":")
    values = dict(option.split("=") for option in options)
    if kind != "came-grad":
        return name.replace(":task_weights=equal", ", equal weights")
    return f"κ = {float(values['kappa']):g}, ν = {float(values['nu']):g}, {values['center']}"


def forest(results: Mapping[str, Mapping[str, Any]], metric: str) -> Figure:
    """Differences from the control, a panel each result: every seed, and mean ± standard error.

    Args:
        results: title of the panel to result.
        metric: as in :func:`differences`.
    """
    with canvas(6.8, 3.9, columns=len(results), sharey=True) as (figure, axes):
        for axis, (title, result) in zip(axes, results.items(), strict=True):
            rows = differences(result, metric)
            places = np.arange(len(rows))[::-1]
            for place, row in zip(places, rows, strict=True):
                colour = BLUE if row.mean < 0 else RED
                axis.plot(row.by_seed, [place - 0.22] * len(row.by_seed), ".", ms=4, color=colour, alpha=0.6)
                axis.errorbar(row.mean, place, xerr=row.error, fmt="o", ms=5, capsize=3, lw=1.3, color=colour)
            axis.axvline(0, color=GREY, lw=0.9)
            axis.set_yticks(places, [short(row.optimizer) for row in rows], fontsize=9)
            axis.set_title(title, fontsize=9.5, loc="left")
        figure.supxlabel(f"{metric}: difference from linear scalarization with equal weights", fontsize=9.5)
        return figure


def worst_change(result: Mapping[str, Any], pairs: Sequence[tuple[str, str]], metrics: Sequence[str]) -> float:
    """Largest relative difference, at any seed, between the two optimizers of a pair.

    Args:
        result: from :func:`read_training`.
        pairs: of names of optimizers.
        metrics: as in :func:`differences`.

    Example:
        >>> rows = [{"optimizer": "a", "runs": {"0": {"x": 2.0}}}, {"optimizer": "b", "runs": {"0": {"x": 3.0}}}]
        >>> worst_change({"optimizers": rows}, [("a", "b")], ["x"])
        0.5
    """
    runs = {row["optimizer"]: row["runs"] for row in result["optimizers"]}
    return max(abs(runs[b][seed][m] / runs[a][seed][m] - 1) for a, b in pairs for seed in runs[a] for m in metrics)
