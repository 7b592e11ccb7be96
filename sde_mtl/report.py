"""One HTML page from the results in a folder: checks, verdicts, measurements and figures; no network, no script."""

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from optimizers.files import write_text

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;font-size:.85rem;width:100%}
td,th{padding:.25rem .5rem;text-align:left;vertical-align:top;border-bottom:1px solid #eee}
th{border-bottom:2px solid #999}.bad{color:#D55E00;font-weight:600}.dim{color:#777}
.good{color:#009E73;font-weight:600}figure{margin:1rem 0}figure svg,figure img{max-width:100%;height:auto}
figcaption{font-size:.85rem;color:#555}
"""
CAPTIONS = {
    "hidden_weights": "Weights of the tasks in CAME-Grad's update at every step, over their sum: what it minimizes on "
    "average. Lines are averages over neighbouring steps with the middle half of the steps around them; dashed, the "
    "weights that were asked for; grey, equal weights.",
    "conflict": "Cosine between the gradients of report generation and disease classification at every training step; "
    "the line is a moving average over twice the autocorrelation time.",
    "deviation": "Angle between the weighted-sum gradient and the conflict-averse direction over the steps; "
    "dashed, the closed form T2 at the averaged moments.",
    "diffusion": "Diffusion ratio at frozen parameters with 95 % bootstrap intervals; crosses, the closed form T3 from "
    "the first half of the micro-batches. Diffusion decay would lie below 1.",
    "effective": "Diffusion of CAME-Grad over that of linear scalarization at the same ηκ, on single micro-batches; "
    "crosses, predicted by the delta method and by Gaussian gradients from the first half of the micro-batches.",
}


class ReportError(ValueError):
    """A result that the page needs is missing or damaged; the message names the file."""


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a folder with ``verify.json``, ``analysis.json`` and the figures it lists.

    If there is a ``training.json`` (``{"note": …, "headings": […], "rows": [[…], …]}``), it is shown too.

    Returns:
        path of the page.

    Raises:
        ReportError: if a file is missing or damaged.
    """
    checks = _read(folder / "verify.json")
    analysis = _read(folder / "analysis.json")
    training = _read(folder / "training.json") if (folder / "training.json").exists() else None
    parts = ["<h1>CAME-Grad end to end: what holds, what was measured</h1>"]
    if training is not None:
        parts += [f"<p>{html.escape(training['note'])}</p>"]
    parts += ["<h2>Verdicts on the paper's claims</h2>", _verdicts(analysis["verdicts"])]
    if training is not None:
        parts += ["<h2>Training</h2>", _table(training["headings"], training["rows"])]
    parts.append("<h2>Figures</h2>")
    for name in analysis["figures"]:
        if name.endswith(".svg"):
            parts.append(_figure(folder / name))
    parts += ["<h2>Theory: every check</h2>", _checks(checks["checks"])]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>CAME-Grad end to end</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        + "\n".join(parts)
        + "</body></html>\n"
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        how = "run 'sde-mtl verify --json' and 'sde-mtl analyze --out' first"
        raise ReportError(f"{path} is missing; {how}") from error
    except ValueError as error:
        raise ReportError(f"{path} is damaged: {error}") from error
    return dict(value)


def _table(headings: Iterable[str], rows: Iterable[Sequence[Any]], classes: Iterable[str] = ()) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in headings)
    marks = iter(classes)
    body = ""
    for row in rows:
        mark = next(marks, "")
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row[:-1])
        cells += f'<td class="{mark}">{html.escape(str(row[-1]))}</td>'
        body += f"<tr>{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _verdicts(rows: list[dict[str, Any]]) -> str:
    cells = [(r["claim"], r["log"], r["paper"], r["measured"], r["outcome"]) for r in rows]
    marks = ["good" if r["outcome"] == "seen" else "bad" for r in rows]
    return _table(("claim", "log", "paper", "measured", "outcome"), cells, marks)


def _checks(rows: list[dict[str, Any]]) -> str:
    cells = [
        (r["id"], r["claim"], _number(r["predicted"]), _number(r["measured"]), _number(r["error"], 2),
         f"{r['tolerance']:.2g} {r['unit']}", _number(r["detects"], 2), r["route"], r["verdict"])
        for r in rows
    ]  # fmt: skip
    marks = ["bad" if not r["passed"] else "dim" if r["control"] else "good" for r in rows]
    headings = ("", "claim", "predicted", "measured", "error", "tolerance", "detects", "route", "verdict")
    return _table(headings, cells, marks)


def _number(value: float | None, digits: int = 6) -> str:
    return "NaN" if value is None else f"{value:.{digits}g}"


def _figure(path: Path) -> str:
    try:
        svg = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ReportError(f"{path} is missing; run 'sde-mtl analyze --out' again") from error
    drawing = svg[svg.index("<svg") :]
    caption = CAPTIONS.get(path.stem, path.stem)
    return f"<figure>{drawing}<figcaption>{html.escape(caption)}</figcaption></figure>"
