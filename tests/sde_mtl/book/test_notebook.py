import matplotlib.text
import pytest
from matplotlib.figure import Figure

from sde_mtl.book import Table, checks, legible
from sde_mtl.theory.check import Check


def test_a_table_is_markdown_to_jupyter_and_to_the_terminal() -> None:
    table = Table(("a", "b"), [("1", "---"), ("2", "x")])
    assert table._repr_markdown_() == repr(table)
    assert repr(table).splitlines()[1] == "|---|---|"


@pytest.mark.parametrize(
    ("error", "control", "verdict"),
    [(0.0, False, "holds"), (2.0, False, "FAILS"), (2.0, True, "rejected"), (0.0, True, "NOT REJECTED")],
)
def test_checks_show_every_verdict_and_mark_controls(error: float, control: bool, verdict: str) -> None:
    (row,) = checks([Check("T", "a | b", 1, 1, error, 1, "SE", "here", control)]).rows
    assert row[-1] == verdict
    assert ("(control)" in row[0]) == control
    assert "|" not in row[0], "would end the cell"


def test_no_text_stays_small_and_none_shrinks() -> None:
    figure = Figure(figsize=(4, 3))
    axis = figure.subplots()
    axis.set_title("large", fontsize=14)
    axis.set_xlabel("small", fontsize=5)
    axis.tick_params(labelsize=4)
    legible(figure, 6.0, 9.0)
    sizes = [t.get_fontsize() for t in figure.findobj(matplotlib.text.Text) if isinstance(t, matplotlib.text.Text)]
    assert min(float(s) for s in sizes) == 9
    assert axis.title.get_fontsize() == 14
    assert figure.get_figwidth() == 4, "never wider"
