"""The picture of the import graph: arrows point down, boxes keep apart, and text is as large as in other figures."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from sde_mtl.book.house import BOX, STOREY, _wide, draw_house, tower
from sde_mtl.book.import_graph import ImportGraph, read_import_graph

GRAPHS = st.integers(1, 9).flatmap(
    lambda size: st.lists(
        st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda arrow: arrow[0] > arrow[1])
    ).map(lambda arrows: {f"r{i}": {f"r{below}" for above, below in arrows if above == i} for i in range(size)})
)


@given(arrows=GRAPHS)
def test_arrows_point_down_and_boxes_keep_apart(arrows: dict[str, set[str]]) -> None:
    built = tower(arrows, 8.0)
    assert {node for node in built.places if isinstance(node, str)} == set(arrows)
    for chain in built.arrows:
        for above, below in pairwise(chain):
            assert built.places[above][1] - built.places[below][1] == pytest.approx(STOREY)
    boxes = [(node, *built.places[node]) for node in arrows]
    for node, x, y in boxes:
        assert x - _wide(node) / 2 >= 0
        assert x + _wide(node) / 2 <= built.width
        assert BOX / 2 <= y <= built.height - BOX / 2
        others = [(other, across) for other, across, level in boxes if other != node and level == y]
        assert all(abs(x - across) >= (_wide(node) + _wide(other)) / 2 for other, across in others)


@given(arrows=GRAPHS)
def test_whatever_is_needed_can_be_reached_along_the_arrows_drawn(arrows: dict[str, set[str]]) -> None:
    drawn: dict[str, set[str]] = {room: set() for room in arrows}
    for first, *_, last in tower(arrows, 8.0).arrows:
        drawn[str(first)].add(str(last))

    def below(room: str, graph: dict[str, set[str]]) -> set[str]:
        return graph[room].union(*(below(other, graph) for other in graph[room]))

    assert all(below(room, drawn) == below(room, arrows) for room in arrows)


def rooms_of(folder: Path) -> ImportGraph:
    for package in ("optimizers", "sde_mtl", "rrg"):
        for name, source in (
            ("__init__", f'"""About {package}."""\nimport {package}.wall'),
            ("wall", f"import {package}.base"),
        ):
            (folder / package / "base").mkdir(parents=True, exist_ok=True)
            (folder / package / f"{name}.py").write_text(source)
        (folder / package / "base/__init__.py").write_text('"""What :mod:`all` ``need``."""')
    return read_import_graph(folder / package for package in ("optimizers", "sde_mtl", "rrg"))


def test_every_room_is_named_in_letters_that_can_be_read(tmp_path: Path) -> None:
    graph = rooms_of(tmp_path)
    figure = draw_house(graph)
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    assert {"sde_mtl", "wall", "base", "About rrg.", "folder", "file", "imports"} <= {t.get_text() for t in texts}
    assert min(text.get_fontsize() for text in texts) >= 9
    assert graph.folders("rrg") == {"rrg.base": "What `all` `need`."}


def test_the_packages_themselves_are_drawn_with_every_box_in_its_panel() -> None:
    figure = draw_house(read_import_graph())
    names = {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}
    assert {"optimizers", "sde_mtl", "rrg", "kernels", "aggregators", "theory", "model"} <= names
    shapes = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    panels = [patch.get_extents() for patch in shapes if patch.get_zorder() == 0]
    boxes = [patch.get_extents() for patch in shapes if patch.get_zorder() > 0]
    assert len(panels) == 3
    assert len(boxes) > 30
    for box in boxes:
        assert (
            sum(panel.containsx(box.x0) and panel.containsx(box.x1) and panel.containsy(box.y0) for panel in panels)
            == 1
        )
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
