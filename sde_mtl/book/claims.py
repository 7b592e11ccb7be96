"""The claims as a table of the book, with links to its chapters, and their verdicts as a picture."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import matplotlib.patches
from matplotlib.figure import Figure

from sde_mtl.book.notebook import Table
from sde_mtl.claims import Claim, Verdict
from sde_mtl.figures.style import BLUE, GREEN, GREY, ORANGE, RED, canvas

CHAPTERS = {
    "T1": "interaction", "T2": "drift_deviation", "T3": "diffusion_decay", "T4": "energy", "T5": "validity",
    "T6": "resting_points", "T7": "resting_points", "T8": "energy", "T9": "resting_points", "T10": "escape",
    "T11": "discretisation", "T12": "energy", "T13": "resting_points", "T14": "energy", "T15": "resting_points",
    "T16": "resting_points", "T18": "resting_points", "T20": "resting_points",
}  # fmt: skip
"""Where a statement is derived and checked."""
COLOURS = {"holds": GREEN, "holds if": BLUE, "fails": RED, "not seen": ORANGE, "not testable here": GREY}


def claims_table(claims: Sequence[Claim]) -> Table:
    """Claim, verdict with links to the statements it rests on, and finding with the command that shows it.

    Example:
        >>> from sde_mtl.claims import CLAIMS
        >>> claims_table([c for c in CLAIMS if c.verdict == "fails"]).rows[0][1]
        '**fails** [T5](validity.md)'
    """
    rows = []
    for claim in claims:
        links = ", ".join(f"[{s}]({CHAPTERS[s]}.md)" for s in claim.statements)
        commands = " · ".join(f"`{part.strip()}`" for part in claim.shown_by.split(";"))
        rows.append(
            (_plain(claim.claim), f"**{claim.verdict}** {links}".strip(), f"{_plain(claim.finding)}<br>{commands}")
        )
    return Table(("claim", "verdict", "finding, and what shows it"), rows)


def _plain(text: str) -> str:
    """The text with what Markdown would take for its own escaped."""
    return text.replace("|", "¦").replace("*", r"\*").replace("_", r"\_")


def verdict_bars(claims: Sequence[Claim]) -> Figure:
    """Number of claims by source and verdict.

    Args:
        claims: of any sources.
    """
    with canvas(6.4, 2.2) as (figure, (axis,)):
        sources = list(dict.fromkeys(claim.source for claim in claims))[::-1]
        for place, source in enumerate(sources):
            counts, end = Counter(c.verdict for c in claims if c.source == source), 0
            for verdict in get_args(Verdict):
                if not counts[verdict]:
                    continue
                axis.barh(place, counts[verdict], left=end, color=COLOURS[verdict], height=0.6)
                axis.text(end + counts[verdict] / 2, place, str(counts[verdict]), ha="center", va="center",
                          color="white", fontsize=10, weight="bold")  # fmt: skip
                end += counts[verdict]
        handles = [matplotlib.patches.Patch(color=COLOURS[v], label=v) for v in get_args(Verdict)]
        axis.set_yticks(range(len(sources)), sources, fontsize=10)
        axis.set_xlabel("claims", fontsize=9.5)
        axis.grid(False)
        figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=9.5)
        return figure
