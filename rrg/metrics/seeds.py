"""What runs of several optimizers measured: mean ± spread over seeds, and difference from the control, as a table."""

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from rrg.metrics.clinical import tabled

SHOWN = ("BLEU-4", "CE F1 micro", "DC F1 micro", "pair conflict share", "step seconds")
RENAMED = {"conflict_rate": "pair_conflict_share"}
"""Old names in ``result.json``, and the new ones."""
Runs = dict[int, dict[str, Any]]


def measured(result: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a ``result.json`` that are compared; a metric that could not be had stays a text.

    Example:
        >>> measured({"training_losses": {"rg": 1.5}, "pair_conflict_share": 0.4})
        {'loss rg': 1.5, 'pair conflict share': 0.4}
    """
    result = {RENAMED.get(name, name): value for name, value in result.items()}
    numbers: dict[str, Any] = {f"loss {task}": value for task, value in result["training_losses"].items()}
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


def summarize(rows: dict[str, Runs], control: str) -> dict[str, Any]:
    """Mean, sample standard deviation and, paired by seed, difference from the control with its standard error.

    Args:
        rows: for each optimizer and seed the numbers of :func:`measured`, or ``{"failed": message}``.
        control: one of the optimizers.

    Returns:
        ``optimizers``, a list of dictionaries, and ``unavailable``, metric → why.

    Example:
        >>> rows = {"a": {0: {"x": 1.0}, 1: {"x": 2.0}}, "b": {0: {"x": 3.0}, 1: {"x": 5.0}}}
        >>> summarize(rows, control="a")["optimizers"][1]["difference_from_control"]
        {'x': {'mean': 2.5, 'standard_error': 0.5}}
    """
    unavailable: dict[str, str] = {}
    optimizers = []
    for name, runs in rows.items():
        good = {seed: run for seed, run in runs.items() if "failed" not in run}
        row: dict[str, Any] = {
            "optimizer": name,
            "runs": {str(seed): run for seed, run in good.items()},
            "failed": {str(seed): run["failed"] for seed, run in runs.items() if "failed" in run},
            "mean": {},
            "standard_deviation": {},
            "difference_from_control": {},
        }
        for metric in dict.fromkeys(metric for run in good.values() for metric in run):
            values = {seed: run[metric] for seed, run in good.items() if metric in run}
            missing = [value for value in values.values() if isinstance(value, str)]
            if missing:
                unavailable[metric] = missing[0]
                continue
            row["mean"][metric] = statistics.mean(values.values())
            if len(values) > 1:
                row["standard_deviation"][metric] = statistics.stdev(values.values())
            reference = {seed: run.get(metric) for seed, run in rows[control].items()}
            paired = [value - reference[s] for s, value in values.items() if isinstance(reference.get(s), float | int)]
            if name != control and len(paired) > 1:
                error = statistics.stdev(paired) / len(paired) ** 0.5
                row["difference_from_control"][metric] = {"mean": statistics.mean(paired), "standard_error": error}
        optimizers.append(row)
    return {"control": control, "optimizers": optimizers, "unavailable": unavailable}


def markdown(summary: dict[str, Any]) -> str:
    """The table of a summary with a ``note``, one row an optimizer."""
    heading, *rows = _cells(summary)
    lines = [f"{summary['note']}.", "", _line(heading), "|" + "---|" * len(heading), *map(_line, rows)]
    missing = [f"- {name}: {why}" for name, why in summary["unavailable"].items()]
    return "\n".join([*lines, *([""] if missing else []), *missing]) + "\n"


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the metrics that matter most, and what could not be had; all of them are in :func:`markdown`."""
    heading, *rows = _cells(summary)
    kept = [i for i, name in enumerate(heading) if name in SHOWN or name.startswith("loss ")]
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
