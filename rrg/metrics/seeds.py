"""What runs of several optimizers measured: mean ± spread over seeds, and paired differences, as tables."""

import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from rrg.metrics.clinical import tabled

SHOWN = ("BLEU-4", "CE F1 macro", "DC F1 macro", "step seconds")
JUDGED = ("validation loss ", "BLEU-4", "ROUGE-L", "CE F1 ", "DC F1 ")
"""Beginnings of the metrics that decide: of studies that were not trained on."""
CONFIDENCE = 0.95
RENAMED = {"conflict_rate": "pair_conflict_share"}
"""Old names in ``result.json``, and the new ones."""
Runs = dict[int, dict[str, Any]]


def measured(result: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a ``result.json`` that are compared; a metric that could not be had stays a text.

    Example:
        >>> measured({"training_losses": {"rg": 1.5}, "validation_losses": {"rg": 2.0}, "pair_conflict_share": 0.4})
        {'validation loss rg': 2.0, 'training loss rg': 1.5, 'pair conflict share': 0.4}
    """
    result = {RENAMED.get(name, name): value for name, value in result.items()}
    numbers: dict[str, Any] = {f"validation loss {task}": v for task, v in result.get("validation_losses", {}).items()}
    numbers |= {
        f"lowest validation loss {task}": at["loss"] for task, at in result.get("lowest_validation_losses", {}).items()
    }
    numbers |= {f"training loss {task}": value for task, value in result["training_losses"].items()}
    numbers |= {f"mean coefficient {task}": value for task, value in result.get("mean_coefficients", {}).items()}
    for name in ("pair_conflict_share", "step_seconds", "studies_per_second"):
        if name in result:
            numbers[name.replace("_", " ")] = result[name]
    scores = result.get("evaluation", {})
    if "bleu" in scores:
        numbers |= {f"BLEU-{n}": value for n, value in enumerate(scores["bleu"], 1)}
        numbers |= {"ROUGE-L": scores["rouge_l"], "CIDEr": scores["cider"], "METEOR": scores["meteor"]}
        numbers["distinct reports"] = scores["distinct_reports"]
    for name, score in tabled(scores).items():
        numbers |= {f"{name} F1 {mean}": score[mean]["f1"] for mean in ("micro", "macro")}
    return numbers


def paired(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Mean difference of paired numbers, with its t-interval and two-sided p.

    Args:
        first, second: n ≥ 2 numbers each, of the same seeds in the same order.

    Returns:
        ``mean`` of first − second, its ``standard_error``, ``low`` and ``high`` of the 95 % t-interval with n − 1
        degrees of freedom, ``p`` of the t-test that the mean is 0, and ``n``. Pairs that all differ alike have p = 0,
        or 1 if they do not differ.

    Example:
        >>> row = paired([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
        >>> row["mean"], round(row["low"], 3), round(row["high"], 3), round(row["p"], 3)
        (2.0, -0.484, 4.484, 0.074)
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n = len(differences)
    mean, error = statistics.mean(differences), statistics.stdev(differences) / n**0.5
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    p = float(2 * student.sf(abs(mean) / error, n - 1)) if error > 0 else float(mean == 0)
    return {"mean": mean, "standard_error": error, "low": mean - half, "high": mean + half, "p": p, "n": n}


def summarize(rows: dict[str, Runs], control: str) -> dict[str, Any]:
    """Mean and sample standard deviation, and differences paired by seed.

    Args:
        rows: for each optimizer and seed the numbers of :func:`measured`, or ``{"failed": message}``.
        control: one of the optimizers.

    Returns:
        ``optimizers``, a list of dictionaries with the difference of each from the control; ``comparisons``, of every
        pair of them in each metric of :data:`JUDGED`, as :func:`paired`, with ``first`` and ``second``, ``metric``, and
        ``p_holm``, the p adjusted for their number by Holm's method; and ``unavailable``, metric → why.

    Example:
        >>> rows = {"a": {0: {"x": 1.0}, 1: {"x": 2.0}}, "b": {0: {"x": 3.0}, 1: {"x": 5.0}}}
        >>> difference = summarize(rows, control="a")["optimizers"][1]["difference_from_control"]["x"]
        >>> difference["mean"], difference["standard_error"]
        (2.5, 0.5)
    """
    unavailable: dict[str, str] = {}
    optimizers = []
    values: dict[str, dict[str, dict[int, float]]] = {}
    for name, runs in rows.items():
        good = {seed: run for seed, run in runs.items() if "failed" not in run}
        values[name] = {}
        for metric in dict.fromkeys(metric for run in good.values() for metric in run):
            found = {seed: run[metric] for seed, run in good.items() if metric in run}
            missing = [value for value in found.values() if isinstance(value, str)]
            if missing:
                unavailable[metric] = missing[0]
            else:
                values[name][metric] = found
        optimizers.append({
            "optimizer": name,
            "runs": {str(seed): run for seed, run in good.items()},
            "failed": {str(seed): run["failed"] for seed, run in runs.items() if "failed" in run},
            "mean": {metric: statistics.mean(found.values()) for metric, found in values[name].items()},
            "standard_deviation": {
                metric: statistics.stdev(found.values()) for metric, found in values[name].items() if len(found) > 1
            },
            "difference_from_control": {} if name == control else _differences(values[name], values.get(control, {})),
        })  # fmt: skip
    names = list(rows)
    comparisons = [
        {"first": first, "second": second, "metric": metric, **row}
        for at, second in enumerate(names)
        for first in names[at + 1 :]
        for metric, row in _differences(values[first], values[second]).items()
        if metric.startswith(JUDGED)
    ]
    return {
        "control": control,
        "optimizers": optimizers,
        "comparisons": _holm(comparisons),
        "unavailable": unavailable,
    }


def _differences(
    first: dict[str, dict[int, float]], second: dict[str, dict[int, float]]
) -> dict[str, dict[str, float]]:
    """By metric, over the seeds that both have, where there are two or more."""
    found = {}
    for metric in first:
        seeds = [seed for seed in first[metric] if seed in second.get(metric, {})]
        if len(seeds) > 1:
            found[metric] = paired([first[metric][s] for s in seeds], [second[metric][s] for s in seeds])
    return found


def _holm(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The comparisons with p adjusted for their number (Holm 1979)."""
    adjusted, running = [0.0] * len(comparisons), 0.0
    for rank, at in enumerate(sorted(range(len(comparisons)), key=lambda i: comparisons[i]["p"])):
        running = max(running, min(1.0, (len(comparisons) - rank) * comparisons[at]["p"]))
        adjusted[at] = running
    return [{**row, "p_holm": p} for row, p in zip(comparisons, adjusted, strict=True)]


def markdown(summary: dict[str, Any]) -> str:
    """The tables of a summary with a ``note``: a row an optimizer, and the differences in what was not trained on."""
    heading, *rows = _cells(summary)
    lines = [f"{summary['note']}.", "", _line(heading), "|" + "---|" * len(heading), *map(_line, rows)]
    comparisons = summary["comparisons"]
    if comparisons:
        metrics = list(dict.fromkeys(row["metric"] for row in comparisons))
        by_pair: dict[tuple[str, str], dict[str, str]] = {}
        for row in comparisons:
            mark = "**" if row["p_holm"] < 1 - CONFIDENCE else ""
            text = f"{mark}{row['mean']:+.3g}{mark} [{row['low']:.3g}, {row['high']:.3g}]"
            by_pair.setdefault((row["first"], row["second"]), {})[row["metric"]] = text
        lines += [
            "",
            f"Differences paired by seed, with 95 % t-intervals, each for itself; of {len(comparisons)} comparisons "
            "those in bold stay significant at 5 % together (Holm).",
            "",
            _line(["first − second", *metrics]),
            "|" + "---|" * (len(metrics) + 1),
            *(_line([f"{a} − {b}", *(cells.get(m, "–") for m in metrics)]) for (a, b), cells in by_pair.items()),
        ]
    missing = [f"- {name}: {why}" for name, why in summary["unavailable"].items()]
    return "\n".join([*lines, *([""] if missing else []), *missing]) + "\n"


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the metrics that matter most, and what could not be had; all of them are in :func:`markdown`."""
    heading, *rows = _cells(summary)
    kept = [i for i, name in enumerate(heading) if name in SHOWN or name.startswith("validation loss ")]
    table = Table(*(heading[i] for i in (0, 1, *kept)), title=summary["note"])
    for row in rows:
        table.add_row(*(row[i] for i in (0, 1, *kept)))
    console.print(table)
    for name, why in summary["unavailable"].items():
        console.print(f"{name}: {why}", style="dim", markup=False)


def _cells(summary: dict[str, Any]) -> list[list[str]]:
    metrics = list(dict.fromkeys(metric for row in summary["optimizers"] for metric in row["mean"]))
    cells = [["optimizer", "runs", *metrics]]
    for row in summary["optimizers"]:
        name = f"{row['optimizer']} (control)" if row["optimizer"] == summary["control"] else row["optimizer"]
        failed = f", {len(row['failed'])} failed" if row["failed"] else ""
        values = [_plus_minus(row["mean"].get(m), row["standard_deviation"].get(m)) for m in metrics]
        cells.append([name, f"{len(row['runs'])}{failed}", *values])
    return cells


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plus_minus(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.4g}" if spread is None else f"{mean:.4g} ± {spread:.2g}"
