"""Every chapter runs as a notebook by itself, in a plain Jupyter kernel, from an empty folder."""

import os
from pathlib import Path

import pytest
from test_sources import BOOK, CHAPTERS

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of jupyter_client
@pytest.mark.parametrize("name", CHAPTERS)
def test_it_runs_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PYDEVD_DISABLE_FILE_VALIDATION", "1")
    path = tmp_path / f"{name}.ipynb"
    jupytext.write(jupytext.read(BOOK / f"{name}.md"), path)
    notebook = jupytext.read(path)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_notebook_that_fails_is_noticed(tmp_path: Path) -> None:
    notebook = jupytext.reads("```{code-cell}\n1 / 0\n```\n", "md:myst")
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
