"""The picture of the import graph: rooms as boxes on storeys, and an arrow down from each to what it needs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from textwrap import wrap

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from sde_mtl.book.import_graph import ImportGraph, reduced, storeys
from sde_mtl.figures.style import BLUE, GREEN, GREY, RED, STYLE

COLOURS = {"optimizers": BLUE, "sde_mtl": GREEN, "rrg": RED}
WIDTHS = {"optimizers": 4.2, "sde_mtl": 2.8, "rrg": 3.6}
"""Of the towers, in inches; those of ``sde_mtl`` and ``rrg`` stand side by side."""
STOREY, BOX, LETTER, GAP, MARGIN = 0.48, 0.25, 0.075, 0.13, 0.18
"""Inches: from floor to floor, height of a box, width of a letter, between boxes, around a tower."""

Crossing = tuple[str, str, int]
"""Where an arrow, from one room to another, passes a storey between them."""
Node = str | Crossing


@dataclass(frozen=True)
class Tower:
    """Rooms of one package, placed.

    Attributes:
        places: centre of every room, and of every storey that an arrow crosses, in inches from the lower left corner.
        arrows: the nodes that each arrow joins, from above to below.
        width, height: in inches.
    """

    places: dict[Node, tuple[float, float]]
    arrows: list[list[Node]]
    width: float
    height: float


def draw_house(graph: ImportGraph) -> Figure:
    """Two towers on one foundation: ``sde_mtl`` and ``rrg`` know ``optimizers`` and nothing of each other.

    Folders are filled, files at a package's root are not; the package's name stands for what its ``__init__`` shows.
    Left out are arrows that follow from others, and files that begin with an underscore.

    Raises:
        graphlib.CycleError: if rooms need each other in a circle.
    """
    built = {name: tower(_rooms(graph, name), width) for name, width in WIDTHS.items()}
    ground, above = built["optimizers"].height, max(built["sde_mtl"].height + 1.2, built["rrg"].height + 0.75)
    floor, beside = ground + 0.32, WIDTHS["sde_mtl"] + 0.1
    page, top = beside + WIDTHS["rrg"], floor + above
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(page, top))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page), ylim=(0, top), aspect="equal")
        axes.set_axis_off()
        for name, left, bottom, width, height, letters in (
            ("optimizers", 0.0, 0.0, page, ground, 30),
            ("sde_mtl", 0.0, floor, WIDTHS["sde_mtl"], above, 36),
            ("rrg", beside, floor, WIDTHS["rrg"], above, 46),
        ):
            _box(axes, (left + width / 2, bottom + height / 2), (width, height), COLOURS[name], 0.08)
            about = "\n".join(wrap(graph.describe(name), letters))
            axes.text(left + 0.15, bottom + height - 0.17, name, color=COLOURS[name], size=13, weight="bold", va="top")
            axes.text(left + 0.15, bottom + height - 0.42, about, va="top", linespacing=1.35)
            _draw(axes, name, built[name], left + width - WIDTHS[name], bottom, graph)
        for middle in (WIDTHS["sde_mtl"] / 2, beside + WIDTHS["rrg"] / 2):
            _arrow(axes, [(middle, floor), (middle, ground)], GREY, 2.0)
        _legend(axes, COLOURS["optimizers"])
        return figure


def tower(arrows: Mapping[str, Iterable[str]], width: float) -> Tower:
    """Place rooms on storeys, each as low as its arrows allow and then as near as they allow to those that need it.

    Example:
        >>> built = tower({"roof": {"wall", "floor"}, "wall": {"floor"}, "floor": set()}, 3.0)
        >>> sorted(built.places, key=lambda name: built.places[name][1])
        ['floor', 'wall', 'roof']
        >>> built.arrows
        [['roof', 'wall'], ['wall', 'floor']]
    """
    direct = reduced(arrows)
    height = _lifted(direct)
    chains: list[list[Node]] = [
        [room, *((room, target, level) for level in range(height[room] - 1, height[target], -1)), target]
        for room in direct
        for target in sorted(direct[room])
    ]
    floors: list[list[Node]] = [[] for _ in range(max(height.values(), default=-1) + 1)]
    for room in sorted(height):
        floors[height[room]].append(room)
    for chain in chains:
        for node in chain[1:-1]:
            floors[node[2] if isinstance(node, tuple) else 0].append(node)
    neighbours: dict[Node, list[Node]] = {node: [] for floor in floors for node in floor}
    for chain in chains:
        for above, below in pairwise(chain):
            neighbours[above].append(below)
            neighbours[below].append(above)
    across = _across(floors, neighbours, width)
    places = {
        node: (across[node], MARGIN + BOX + STOREY * level) for level, floor in enumerate(floors) for node in floor
    }
    return Tower(places, chains, width, STOREY * (len(floors) - 1) + 2 * MARGIN + 2 * BOX)


def _rooms(graph: ImportGraph, package: str) -> dict[str, set[str]]:
    """The rooms of a package that are not private, and the arrows among them; none that stands alone."""
    own = {room for room in graph.rooms if room.split(".")[0] == package and not _label(room).startswith("_")}
    arrows = {room: graph.rooms[room] & own for room in own}
    return {room: targets for room, targets in arrows.items() if targets or any(room in a for a in arrows.values())}


def _lifted(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    height = storeys(arrows)
    for room in sorted(height, key=lambda name: -height[name]):
        above = [height[other] for other, targets in arrows.items() if room in targets]
        is_facade = "." not in room
        height[room] = min(above) - 1 if above else max(height.values()) if is_facade else height[room]
    return height


def _wide(node: Node) -> float:
    return LETTER * len(_label(node)) + 0.2 if isinstance(node, str) else 0.06


def _label(room: str) -> str:
    package, _, name = room.partition(".")
    return name or package


def _across(floors: list[list[Node]], neighbours: Mapping[Node, list[Node]], width: float) -> dict[Node, float]:
    """Where each node stands on its floor: under and above its neighbours, as far as boxes leave room."""
    across: dict[Node, float] = {}
    for floor in floors:
        across.update(_apart(floor, {node: width / 2 for node in floor}, width))
    for sweep in range(24):
        for floor in floors if sweep % 2 else reversed(floors):
            wish = {node: fmean([across[other] for other in neighbours[node]] or [across[node]]) for node in floor}
            floor.sort(key=lambda node: (wish[node], str(node)))
            across.update(_apart(floor, wish, width))
    ends = [across[node] + side * _wide(node) / 2 for node in across for side in (-1, 1)]
    return {node: x + (width - min(ends) - max(ends)) / 2 for node, x in across.items()}


def _apart(floor: list[Node], wish: Mapping[Node, float], width: float) -> dict[Node, float]:
    """The wished places, moved apart so that boxes in this order neither touch nor leave the tower."""
    half = [_wide(node) / 2 for node in floor]
    gap = min(GAP, (width - 2 * sum(half)) / (len(floor) + 1))
    x = [wish[node] for node in floor]
    for i in range(len(floor)):
        x[i] = max(x[i], (x[i - 1] + half[i - 1] + gap if i else gap) + half[i])
    for i in reversed(range(len(floor))):
        x[i] = min(x[i], (x[i + 1] - half[i + 1] - gap if i + 1 < len(floor) else width - gap) - half[i])
    return dict(zip(floor, x, strict=True))


def _draw(axes: Axes, package: str, built: Tower, left: float, bottom: float, graph: ImportGraph) -> None:
    colour = COLOURS[package]
    for chain in built.arrows:
        points = [(left + x, bottom + y) for x, y in (built.places[node] for node in chain)]
        (x0, y0), (x1, y1) = points[0], points[-1]
        _arrow(axes, [(x0, y0 - BOX / 2), *points[1:-1], (x1, y1 + BOX / 2)], GREY, 0.8)
    for room, (x, y) in built.places.items():
        if isinstance(room, str):
            is_file = room != package and graph.files[room].name != "__init__.py"
            centre = (left + x, bottom + y)
            _box(axes, centre, (_wide(room), BOX), "white" if is_file else colour, 1.0, colour)
            style = "bold" if room == package else "normal"
            text = "black" if is_file else "white"
            axes.text(*centre, _label(room), color=text, ha="center", va="center_baseline", weight=style, zorder=3)


def _legend(axes: Axes, colour: str) -> None:
    for y, name, fill, text in ((0.8, "folder", colour, "white"), (0.35, "file", "white", "black")):
        _box(axes, (0.55, y), (0.8, BOX), fill, 1.0, colour)
        axes.text(0.55, y, name, color=text, ha="center", va="center_baseline", zorder=3)
    _arrow(axes, [(1.35, 0.93), (1.35, 0.22)], GREY, 0.8)
    axes.text(1.47, 0.575, "imports", va="center_baseline")


def _box(
    axes: Axes,
    centre: tuple[float, float],
    size: tuple[float, float],
    fill: str,
    opacity: float,
    edge: str | None = None,
) -> None:
    corner = (centre[0] - size[0] / 2, centre[1] - size[1] / 2)
    shape = FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.06", zorder=2 if edge else 0)
    shape.set(facecolor=to_rgba(fill, opacity), edgecolor=edge or "none", linewidth=0.9)
    axes.add_patch(shape)


def _arrow(axes: Axes, points: list[tuple[float, float]], colour: str, width: float) -> None:
    """A curve through the points that leaves and arrives vertically."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Path.CURVE4] * 3
    style = "-|>,head_length=3,head_width=1.6"
    axes.add_patch(FancyArrowPatch(path=Path(vertices, codes), arrowstyle=style, color=colour, lw=width, zorder=1))
