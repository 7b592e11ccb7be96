"""The one style of the project's figures: palette, canvas, and how they are written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
SKY = "#56B4E9"
"""Okabe and Ito's palette, distinguishable in colour blindness."""
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE)
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "sde-mtl",
    "svg.fonttype": "none",
}


@contextmanager
def canvas(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    *,
    sharex: bool = False,
    sharey: bool = False,
    font_size: float = 9,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure and its panels, row by row; whatever is drawn within the block has the project's style.

    Args:
        width, height: of the figure, in inches.
        rows, columns: of the grid of panels.
        sharex, sharey: whether the panels have one axis in common.
        font_size: of all text that does not say otherwise, in points.

    Example:
        >>> with canvas(4, 3) as (figure, (axis,)):
        ...     line = axis.plot([0, 1])
        >>> figure.get_size_inches().tolist()
        [4.0, 3.0]
    """
    with matplotlib.rc_context(STYLE | {"font.size": font_size}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, list(figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False).flat)


def save(figure: Figure, folder: Path, name: str) -> list[str]:
    """Write a figure as SVG and PNG.

    Args:
        figure: to write.
        folder: made if it is not there.
        name: of both files, without their endings.

    Returns:
        names of the two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{name}.svg", f"{name}.png"]
    with matplotlib.rc_context(STYLE):
        figure.savefig(folder / names[0], metadata={"Date": None})
        figure.savefig(folder / names[1])
    return names
