"""Agreement of the rule-based labeller with the experts' MeSH tags, printed or as ``book/labeller.md``.

python -m rrg.data.labels --markdown book/labeller.md
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from optimizers.files import write_text
from rrg.command import command_line
from rrg.data.labels.mesh import mesh_labels
from rrg.data.labels.rules import label
from rrg.data.openi import RawReport, attribution, read_reports
from rrg.data.study import CONDITIONS, LabelState

HEADINGS = ("condition", "tagged", "precision", "recall", "F1", "κ")
COMMAND = "python -m rrg.data.labels --markdown book/labeller.md"


@dataclass(frozen=True)
class AgreementConfig:
    """Compare the rule-based labeller with the experts' tags on the OpenI reports."""

    markdown: Path | None = None
    """File to write; by default the table is printed."""
    reports: Path | None = None
    """Own copy of the OpenI reports, a .tgz or a folder of XML files."""


@dataclass(frozen=True)
class Agreement:
    """Text labeller against expert tags for one condition, positive class."""

    condition: str
    tagged: int
    precision: float
    recall: float
    f1: float
    kappa: float

    def cells(self) -> list[str]:
        """Texts of :data:`HEADINGS`; a ratio with denominator 0 is a dash."""
        values = (self.precision, self.recall, self.f1, self.kappa)
        return [self.condition, str(self.tagged), *("–" if x != x else f"{x:.3f}" for x in values)]


def agreement(texts: Sequence[str], meshes: Sequence[Sequence[str]]) -> list[Agreement]:
    """Precision, recall, F1 and Cohen's κ of the positive class per condition, tags as reference.

    Reports tagged "no indexing" are left out. Ratios with denominator 0 are NaN.

    Example:
        >>> rows = agreement(["cardiomegaly .", "no edema ."], [["cardiomegaly/mild"], ["normal"]])
        >>> rows[1].cells()
        ['Cardiomegaly', '1', '1.000', '1.000', '1.000', '1.000']
    """
    kept = [(label(t), mesh_labels(m)) for t, m in zip(texts, meshes, strict=True) if "no indexing" not in m]
    rows = []
    for index, condition in enumerate(CONDITIONS):
        said = [states[index] == LabelState.POSITIVE for states, _ in kept]
        tagged = [condition in tags for _, tags in kept]
        n, both = len(kept), sum(a and b for a, b in zip(said, tagged, strict=True))
        a, b = sum(said), sum(tagged)
        observed = (both + n - a - b + both) / n
        chance = (a * b + (n - a) * (n - b)) / n**2
        rows.append(
            Agreement(
                condition,
                b,
                both / a if a else float("nan"),
                both / b if b else float("nan"),
                2 * both / (a + b) if a + b else float("nan"),
                (observed - chance) / (1 - chance) if chance < 1 else float("nan"),
            )
        )
    return rows


def markdown(reports: Sequence[RawReport]) -> str:
    """The page of the book: the table and what it is of. It holds numbers only, no report text."""
    indexed = [report for report in reports if "no indexing" not in report.mesh]
    last = CONDITIONS.index("No Finding")
    tags = [mesh_labels(r.mesh) for r in indexed if label(_text(r))[last] == LabelState.POSITIVE]
    alone = [tagged for tagged in tags if "No Finding" not in tagged]
    outside = sum(tagged <= {"Support Devices"} for tagged in alone)
    rows = "\n".join(_line(row.cells()) for row in agreement(*_sides(indexed)))
    return f"""# The built-in labeller against the experts

`rrg.data.labels` labels reports by rules where CheXbert's weights are not at hand. Experts have tagged the
{len(reports):,} reports of the Indiana University collection with MeSH terms, {len(reports) - len(indexed):,} of them
with "no indexing". On the other {len(indexed):,} the labeller's positive labels of findings and impression agree with
the tags as follows (κ is Cohen's):

{_line(HEADINGS)}
|---|{"---:|" * (len(HEADINGS) - 1)}
{rows}

{len(alone):,} reports have No Finding from the labeller but not the tag "normal". {outside:,} of them are tagged only
with devices or with what lies outside the 14 conditions, such as calcified granulomas or changes of the spine.

Written by `{COMMAND}`.
{attribution().split(" Images:")[0]}
"""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(report: RawReport) -> str:
    return f"{report.findings}\n{report.impression}"


def _sides(reports: Sequence[RawReport]) -> tuple[list[str], list[Sequence[str]]]:
    return [_text(report) for report in reports], [report.mesh for report in reports]


def cli(options: AgreementConfig, console: Console) -> None:
    """Print the table, or write the page."""
    reports = read_reports(options.reports)
    if options.markdown is not None:
        write_text(options.markdown, markdown(reports))
        return
    table = Table(*HEADINGS, title="labeller vs MeSH tags")
    for row in agreement(*_sides(reports)):
        table.add_row(*row.cells())
    console.print(table)
    console.print(attribution(), style="dim")


def main() -> None:
    """Command line: ``python -m rrg.data.labels``."""
    command_line(AgreementConfig, cli, AgreementConfig.__doc__)
