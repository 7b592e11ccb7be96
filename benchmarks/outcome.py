"""What a benchmark script found: goals, tables and raw numbers; shown, saved, and rendered as Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from machine import RESULTS, versions, write
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable


@dataclass(frozen=True)
class Goal:
    """A number against what it should be.

    Attributes:
        item: of the list of goals.
        claim: what is measured.
        required: the bound; None where the number is only reported.
        measured: None where it could not be, because a peer is not installed.
        least: whether ``required`` is a lower bound.
        note: what a reader must know to judge.
    """

    item: str
    claim: str
    required: float | None
    measured: float | None
    least: bool = True
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "met", "NOT met", "reported" or "not measured"."""
        if self.measured is None:
            return "not measured"
        if self.required is None:
            return "reported"
        met = self.measured >= self.required if self.least else self.measured <= self.required
        return "met" if met else "NOT met"

    def cells(self) -> list[str]:
        bound = "" if self.required is None else f"{'≥' if self.least else '≤'} {number(self.required)}"
        measured = "" if self.measured is None else number(self.measured)
        return [self.item, self.claim, bound, measured, self.verdict, self.note]


GOAL_COLUMNS = ["item", "goal", "required", "measured", "", "note"]


@dataclass(frozen=True)
class Table:
    """Rows of text under a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", _line(self.columns), _line(["---"] * len(self.columns))]
        return "\n".join([*lines, *map(_line, self.rows)]) + "\n"

    def show(self, console: Console) -> None:
        table = RichTable(*map(escape, self.columns), title=escape(self.title))
        for row in self.rows:
            table.add_row(*map(escape, row))
        console.print(table)


@dataclass(frozen=True)
class Outcome:
    """Everything that a script found."""

    name: str
    options: dict[str, Any]
    packages: Iterable[str]
    goals: list[Goal] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def show(self, console: Console) -> None:
        for table in self.tables:
            table.show(console)
        if self.goals:
            Table("goals", GOAL_COLUMNS, [goal.cells() for goal in self.goals]).show(console)

    def save(self, folder: Path) -> Path:
        """Write ``speed-NAME-DEVICE.json``; the path."""
        value = {
            "options": self.options,
            "packages": versions(self.packages),
            "goals": [{**asdict(goal), "verdict": goal.verdict} for goal in self.goals],
            "tables": [asdict(table) for table in self.tables],
            "numbers": self.numbers,
        }
        return write(f"speed-{self.name}", value, folder)

    def finish(self, console: Console, results: Path | None, quick: bool) -> None:
        """Show, and save to ``results``: by default the project's folder, and nowhere after a quick run."""
        self.show(console)
        folder = results or (None if quick else RESULTS)
        if folder is not None:
            console.print(f"wrote {self.save(folder)}")


def number(value: float) -> str:
    """Three significant digits, without an exponent where it reads well.

    Example: 0.0123, 4.57, 1,234, 1.2e-16.
    """
    if value == 0:
        return "0"
    if 1e3 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    for unit, size in (("h", 3600.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
