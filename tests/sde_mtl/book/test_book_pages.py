"""What the book's pages call: kept results, provenance, tables and figures made of them, values for the text."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import logs
import pytest

from sde_mtl.book import (
    TwoHeads,
    answer,
    batches,
    claims_table,
    cosine_figure,
    differences,
    forest,
    glue,
    kept_result,
    provenances,
    read_phases,
    read_training,
    verdict_bars,
)
from sde_mtl.book.__main__ import main, parser
from sde_mtl.book.claims import CHAPTERS, COLOURS
from sde_mtl.claims import CLAIMS, Verdict
from sde_mtl.theory import STATEMENTS

ROOT = Path(__file__).parents[3]
RESULT = "report-generators-cpu-x86-64-2-cores.json"


def test_kept_results_are_found_by_name() -> None:
    assert kept_result(RESULT).is_file()
    with pytest.raises(FileNotFoundError, match=rf"no kept result 'none.json'; there are .*{RESULT}"):
        kept_result("none.json")


def test_provenance_names_command_and_date() -> None:
    entries = provenances()
    assert "phases.json" in {entry.name for entry in entries}
    assert all(entry.date.startswith("20") and entry.torch for entry in entries)


def test_every_statement_has_a_chapter_and_every_verdict_a_colour() -> None:
    assert CHAPTERS.keys() == STATEMENTS.keys()
    assert set(get_args(Verdict)) == COLOURS.keys()


def test_the_table_of_claims_is_a_table() -> None:
    lines = repr(claims_table(CLAIMS)).splitlines()
    assert len(lines) == len(CLAIMS) + 2
    assert {line.count("|") for line in lines} == {4}


def test_bars_count_all_claims() -> None:
    numbers = [int(text.get_text()) for text in verdict_bars(CLAIMS).axes[0].texts]
    assert sum(numbers) == len(CLAIMS)


def test_the_kept_phase_diagrams_change_side_at_one_half() -> None:
    for diagram in read_phases(kept_result("phases.json")):
        assert abs(diagram.position[:, diagram.nus < 0.5]).max() < 0.05
        assert abs(diagram.position[:, diagram.nus > 0.5] - 1).max() < 0.05


def test_phase_diagrams_are_written_with_provenance(tmp_path: Path) -> None:
    path = tmp_path / "new/phases.json"
    main(["phases", str(path), "--steps", "2"])
    assert len(read_phases(path)) == 2
    command = json.loads(path.with_suffix(".provenance.json").read_text())["command"]
    assert command == f"python -m sde_mtl.book phases {path}"


def test_an_excerpt_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = logs.write_log(tmp_path / "log", steps=3)
    main(["excerpt", str(folder)])
    assert json.loads(capsys.readouterr().out)["steps"] == [0, 1, 2]


MODULE = re.compile(r"python -m ([\w.]+)")
SCRIPT = re.compile(r"python ([\w/]+\.py)")


def test_what_a_recorded_command_runs_is_there() -> None:
    """Its module or script, and the subcommand of ours."""
    commands = [command for entry in provenances() for command in entry.commands]
    modules = {name for command in commands for name in MODULE.findall(command)}
    scripts = {name for command in commands for name in SCRIPT.findall(command)}
    assert modules >= {"sde_mtl.book"}
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
    for command in commands:
        if "-m sde_mtl.book " in command:
            parser().parse_args(shlex.split(command.split(">")[0])[3:])


def test_our_subcommands_run_without_a_warning() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-m", "sde_mtl.book", "phases", "--help"], check=False,
                          capture_output=True, text=True, cwd=ROOT)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_differences_are_those_of_the_benchmark() -> None:
    result = read_training(kept_result(RESULT))
    rows = {row["optimizer"]: row for row in result["optimizers"]}
    for difference in differences(result, "loss rg"):
        told = rows[difference.optimizer]["difference_from_control"]["loss rg"]
        assert difference.mean == pytest.approx(told["mean"])
        assert difference.error == pytest.approx(told["standard_error"])


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(KeyError, match=r"no metric 'none'; there are .*loss rg"):
        differences(read_training(kept_result(RESULT)), "none")


def test_the_forest_has_a_panel_each_metric() -> None:
    figure = forest(read_training(kept_result(RESULT)), ["loss rg", "BLEU-4"], against="cagrad")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["loss rg", "BLEU-4"]


def test_the_answer_counts_the_claims_of_the_paper() -> None:
    found = answer()
    assert found["claims"] == sum(claim.source == "paper" for claim in CLAIMS)
    assert set(found) >= {"conflict", "harm", "ratio low", "ratio high", "share"}


def test_the_two_heads_share_their_trunk() -> None:
    model, data = TwoHeads(), batches(2)
    for loss in model(*data[0]):
        model.zero_grad()
        loss.backward(retain_graph=True)
        assert all(p.grad is not None for p in model.trunk.parameters())
    assert len(cosine_figure([0.1, -0.2]).axes[0].lines[0].get_xdata()) == 2  # type: ignore[arg-type]


def test_glue_writes_what_myst_nb_reads() -> None:
    """The same record as MyST-NB's own function, in a shell of its own."""
    pytest.importorskip("IPython")
    original = pytest.importorskip("myst_nb").glue
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    try:
        with capture_output() as ours:
            glue("rate", 0.5)
        with capture_output() as theirs:
            original("rate", 0.5, display=False)
    finally:
        InteractiveShell.clear_instance()
    (a,), (b,) = ours.outputs, theirs.outputs
    assert (a.data, a.metadata) == (b.data, b.metadata)
