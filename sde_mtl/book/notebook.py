"""What notebooks show beside the packages' results: tables, and figures legible on a phone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib.text
from matplotlib.figure import Figure

from sde_mtl.theory.check import Check


@dataclass(frozen=True)
class Table:
    """Rows that a notebook shows as a table, and anything else as Markdown.

    Example:
        >>> Table(("ν", "rests at"), [("0.2", "mean")])
        | ν | rests at |
        |---|---|
        | 0.2 | mean |
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __repr__(self) -> str:
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        return "\n".join("|" + "|".join(c if c == "---" else f" {c} " for c in line) + "|" for line in lines)

    def _repr_markdown_(self) -> str:
        return repr(self)


def checks(rows: Iterable[Check]) -> Table:
    """Checks with prediction beside measurement; negative controls are marked.

    Example:
        >>> from sde_mtl.theory import t05_validity
        >>> checks(t05_validity.check()[:1]).rows[0][1:]
        ('-2.25', '-2.25', '0 (≤ 1e-12)', 'holds')
    """
    unit = {"SE": " SE", "relative": " rel.", "absolute": "", "count": ""}
    return Table(
        ("claim", "predicted", "measured", "error (allowed)", "verdict"),
        [
            (
                r.claim.replace("|", "¦") + (" **(control)**" if r.control else ""),
                f"{r.predicted:.4g}",
                f"{r.measured:.4g}",
                f"{r.error:.2g}{unit[r.unit]} (≤ {r.tolerance:.2g})",
                r.verdict,
            )
            for r in rows
        ],
    )


def legible(figure: Figure, width: float | None = None, size: float = 9.5) -> Figure:
    """The figure with no text below ``size`` points, and of at most ``width`` inches.

    Args:
        figure: changed in place and returned.
        width: the height stays.
        size: in points.

    Example:
        >>> figure = Figure(figsize=(9, 3))
        >>> text = figure.text(0, 0, "small", fontsize=7)
        >>> legible(figure, 6.5).get_size_inches().tolist(), text.get_fontsize()
        ([6.5, 3.0], 9.5)
    """
    if width is not None and figure.get_figwidth() > width:
        figure.set_figwidth(width)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            current = [label.get_fontsize() for label in axis.get_ticklabels()]
            axis.set_tick_params(labelsize=max([size, *current]))
    for text in figure.findobj(matplotlib.text.Text):
        if isinstance(text, matplotlib.text.Text):
            text.set_fontsize(max(size, float(text.get_fontsize())))
    return figure
