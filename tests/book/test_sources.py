"""The pages of the book, before they are built."""

import importlib
import re
from pathlib import Path

import pytest
from checker import PLAIN, toc

BOOK = Path(__file__).parents[2] / "book"
CHAPTERS = [name for name in toc(BOOK) if name not in PLAIN and not name.startswith("api/")]
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.M | re.S)
OPTIONS = re.compile(r"\A(?:---\n.*?^---\n|(?::[^\n]*\n)+)", re.M | re.S)


def cells(name: str) -> list[tuple[str, str]]:
    """Options and code of every cell."""
    found = []
    for text in CELL.findall((BOOK / f"{name}.md").read_text()):
        match = OPTIONS.match(text)
        head = match.group() if match else ""
        found.append((head, text[len(head) :]))
    return found


@pytest.mark.parametrize("package", ["optimizers", "sde_mtl"])
def test_every_public_name_is_in_the_reference(package: str) -> None:
    page = (BOOK / f"api/{package}.md").read_text()
    listed = set(re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", page, re.M))
    missing = set(importlib.import_module(package).__all__) - listed - {"AGGREGATORS"}
    assert not missing


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_is_a_notebook_for_everybody(name: str) -> None:
    """It names its kernel, imports installed packages only, and glues without MyST-NB."""
    text = (BOOK / f"{name}.md").read_text()
    assert text.startswith("---\njupytext:")
    assert "name: python3" in text
    assert "myst_nb" not in text
    code = "\n".join(code for _, code in cells(name))
    packages = set(re.findall(r"^(?:from|import) (\w+)", code, re.M))
    assert packages <= {
        "collections", "dataclasses", "functools", "importlib", "itertools", "json", "math", "pathlib", "platform",
        "statistics", "tempfile", "time", "IPython", "matplotlib", "numpy", "optimizers", "rrg", "scipy", "sde_mtl",
        "sympy", "torch",
    }  # fmt: skip


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_something_to_play_with(name: str) -> None:
    if name not in ("intro",):
        assert any("parameters" in head for head, _ in cells(name))


@pytest.mark.parametrize("name", CHAPTERS)
def test_what_the_text_quotes_is_glued(name: str) -> None:
    """Whatever is quoted is glued by a cell (names made of variables are taken at their word)."""
    text = (BOOK / f"{name}.md").read_text()
    quoted = set(re.findall(r"\{glue:\w+\}`([^`:]+)(?::[^`]*)?`", text))
    code = "\n".join(code for _, code in cells(name))
    fixed = [c for c in quoted if f'"{c}"' not in code and f"'{c}'" not in code]
    assert not fixed or "glue(f" in code or re.search(r"glue\(\w+,|glue\(\*", code), fixed


def test_citations_are_in_the_bibliography() -> None:
    keys = set(re.findall(r"^@\w+\{([\w-]+),", (BOOK / "references.bib").read_text(), re.M))
    text = "\n".join(path.read_text() for path in BOOK.rglob("*.md"))
    cited = {key.strip() for group in re.findall(r"\{cite[\w:]*\}`([^`]+)`", text) for key in group.split(",")}
    assert cited <= keys
    assert keys <= cited, "never cited"


def test_kept_results_are_small_and_say_how_they_were_made() -> None:
    results = [path for path in (BOOK / "results").iterdir() if ".provenance" not in path.name]
    assert results
    assert sum(path.stat().st_size for path in results) < 1_000_000
    for path in results:
        assert path.with_suffix(".provenance.json").is_file(), path.name
