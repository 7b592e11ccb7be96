"""``python benchmarks/conformance.py PATH``: the page of the book on TorchJD's aggregators and ours, as Markdown."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from optimizers.files import write_text
from optimizers.testing.command import Options, options
from optimizers.testing.properties import PROPERTIES
from optimizers.testing.verdict import Verdict, judge

COMMAND = "python benchmarks/conformance.py"
LOOSE = 1e-3
"""TorchJD's own tests take up to 4e-4 for rounding, for its regularization is of that order."""
OURS = (
    "optimizers:linear", "optimizers:mgda", "optimizers:pcgrad", "optimizers:cagrad", "optimizers:imtl_g",
    "optimizers:aligned_mtl", "optimizers:nash_mtl",
    "optimizers:came_grad_coefficients", "optimizers.torchjd:CAMEGrad(center='weighted')",
)  # fmt: skip
THEIRS = (
    "AlignedMTL", "CAGrad(c=0.5)", "ConFIG", "DualProj", "ExcessMTL", "FairGrad(alpha=1.0)", "GradDrop", "GradVac",
    "IMTLG", "Krum(n_byzantine=1)", "MGDA", "Mean", "NashMTL(n_tasks=K)", "PCD", "PCGrad", "Random", "Sum",
    "TrimmedMean(trim_number=1)", "UPGrad",
)  # fmt: skip
TASKS = {"Krum(n_byzantine=1)": "4-5", "TrimmedMean(trim_number=1)": "3-5", "NashMTL(n_tasks=K)": "2-5"}
"""Fewer are too few for the method, or for its implementation."""
SYMBOLS = {"holds": "✓", "fails": "✗", "not applicable": "–"}


def judged(chosen: Options) -> list[tuple[Verdict, str]]:
    """Each property's verdict and its symbol: ≈ where it fails, but holds at the tolerance :data:`LOOSE`."""
    rows = []
    for name in chosen.properties:
        verdict = judge(PROPERTIES[name], chosen.subject, **chosen.effort)
        symbol = SYMBOLS[verdict.outcome]
        if verdict.outcome == "fails" and verdict.violation <= LOOSE:
            looser = judge(PROPERTIES[name], chosen.subject, **(chosen.effort | {"tolerance": LOOSE}))
            symbol = "≈" if looser.outcome == "holds" else symbol
        rows.append((verdict, symbol))
    return rows


def page(results: dict[str, list[tuple[Verdict, str]]], examples: int) -> str:
    """The Markdown of results by name."""
    numbers = {name: number for number, name in enumerate(PROPERTIES, 1)}
    lines = [
        "# Conformance of aggregators",
        "",
        f"Made with TorchJD {version('torchjd')}; do not edit, but run",
        f"`{COMMAND} book/conformance.md --examples {examples}`.",
        "For your own: `pytest --pyargs optimizers.testing --aggregator mypkg:MyAggregator`.",
        "",
        f"✓ no counterexample among {examples} cases at a relative tolerance of 1e-6 · ≈ none at {LOOSE:g}, which is "
        "what",
        "regularized or iterative solvers reach · ✗ a counterexample, below · – not applicable. Tasks: 1 to 5, but as",
        "the name says. A method with a state is reset before each call, one that draws gets the same stream, so",
        "that 7 and 10 judge it on equal draws.",
        "",
        "| | property |",
        "|---|---|",
        *(f"| {numbers[name]} | `{name}`: {check.statement} |" for name, check in PROPERTIES.items()),
        "",
        f"| aggregator | {' | '.join(str(n) for n in numbers.values())} |",
        f"|---|{'---|' * len(numbers)}",
        *(f"| `{name}` | {' | '.join(symbol for _, symbol in rows)} |" for name, rows in results.items()),
        "",
        "## Counterexamples",
    ]
    for name, rows in results.items():
        failing = [verdict for verdict, symbol in rows if symbol in "✗≈"]
        if failing:
            lines += ["", f"`{name}`", ""]
            lines += [f"- `{verdict.property}`: `{verdict.reason}`" for verdict in failing]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, whole or not at all."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("path", type=Path, help="such as book/conformance.md")
    parser.add_argument("--examples", type=int, default=100, metavar="N", help="cases tried a property")
    parser.add_argument("--only", nargs="*", metavar="WORD", help="aggregators whose name contains one of these")
    given = parser.parse_args(arguments)
    specs = [(spec, "1-5") for spec in OURS]
    specs += [(f"torchjd.aggregation:{name}", TASKS.get(name, "1-5")) for name in THEIRS]
    results = {}
    for spec, tasks in specs:
        if given.only and not any(word in spec for word in given.only):
            continue
        print(spec, file=sys.stderr)
        name = spec.removeprefix("torchjd.aggregation:") + ("" if tasks == "1-5" else f", {tasks} tasks")
        results[name] = judged(options(spec, tasks=tasks, examples=given.examples))
    write_text(given.path, page(results, given.examples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
