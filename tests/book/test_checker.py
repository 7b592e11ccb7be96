"""The checker of the built book finds what it is there to find."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checker import problems

CELL = '<div class="cell_input">1</div><div class="cell_output"><img src="a.png" alt="A picture of two arrows."></div>'
GOOD = f"""<html lang="en"><head><link rel="stylesheet" href="s.css"><script src="s.js"></script></head><body>
<h1>Print</h1><article><h1 id="top-of-it">One</h1><p>text</p>{CELL}<a href="two.html#there">two</a>
<a href="_sources/one.ipynb">notebook</a><a href="https://example.org">elsewhere</a></article></body></html>"""


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, Path]:
    book, html = tmp_path / "book", tmp_path / "html"
    (html / "_sources").mkdir(parents=True)
    book.mkdir()
    (book / "_toc.yml").write_text("format: jb-book\nroot: one\nparts:\n- chapters:\n  - file: two\n")
    for name in ("one", "two"):
        (book / f"{name}.md").touch()
        (html / f"_sources/{name}.ipynb").touch()
    for name in ("a.png", "s.css", "s.js", "searchindex.js"):
        (html / name).touch()
    (html / "one.html").write_text(GOOD)
    (html / "two.html").write_text(GOOD.replace("top-of-it", "there").replace("one.ipynb", "two.ipynb"))
    return book, html


def test_a_good_book_has_no_problem(built: tuple[Path, Path]) -> None:
    assert problems(*built) == []


BREAKS: dict[str, tuple[Callable[[str], str], str]] = {
    "a script from elsewhere": (
        lambda s: s.replace('src="s.js"', 'src="https://cdn/s.js"'),
        "fetches https://cdn/s.js",
    ),
    "a style from elsewhere": (lambda s: s.replace('href="s.css"', 'href="//cdn/s.css"'), "fetches //cdn/s.css"),
    "an image from elsewhere": (lambda s: s.replace('src="a.png"', 'src="http://x/a.png"'), "fetches http://x/a.png"),
    "a font of a style element": (
        lambda s: s.replace("<body>", "<style>@font-face{src:url('https://f/a.woff')}</style><body>"),
        "fetches https://f/a.woff",
    ),
    "a missing image": (lambda s: s.replace('src="a.png"', 'src="b.png"'), "missing file b.png"),
    "no alternative text": (lambda s: s.replace(' alt="A picture of two arrows."', ""), "no alternative text"),
    "a file name for one": (lambda s: s.replace("A picture of two arrows.", "_images/a.png"), "no alternative text"),
    "a failed cell": (lambda s: s.replace("<p>text", "<p>Traceback (most recent call last)"), "shows 'Traceback"),
    "an unresolved number": (lambda s: s.replace("<p>text", "<p>{glue:text}`rate`"), "shows '{glue:text}`'"),
    "a figure that was not drawn": (lambda s: s.replace("<p>text", "<p>&lt;Figure size 9x9"), "shows '<Figure size'"),
    "no output": (lambda s: s.replace("cell_output", "other"), "carries no output"),
    "a link to nowhere": (lambda s: s.replace("two.html#there", "three.html"), "broken link three.html"),
    "an anchor to nowhere": (lambda s: s.replace("#there", "#here"), "broken anchor two.html#here"),
    "no notebook to download": (lambda s: s.replace("_sources/one.ipynb", "two.html"), "no link to its .ipynb"),
    "two titles": (lambda s: s.replace("<p>", "<h1>Two</h1><p>"), "only first-level heading"),
    "no language": (lambda s: s.replace(' lang="en"', ""), "does not name its language"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_it_finds(what: str, built: tuple[Path, Path]) -> None:
    book, html = built
    change, message = BREAKS[what]
    changed = change(GOOD)
    assert changed != GOOD
    (html / "one.html").write_text(changed)
    found = problems(book, html)
    assert len(found) == 1, found
    assert message in found[0]


def test_it_finds_missing_and_forgotten_pages(built: tuple[Path, Path]) -> None:
    book, html = built
    (html / "two.html").unlink()
    (book / "three.md").touch()
    found = problems(book, html)
    assert "two: not built" in found
    assert "three: not in the table of contents" in found


def test_it_reads_style_sheets(built: tuple[Path, Path]) -> None:
    book, html = built
    (html / "s.css").write_text("/* url(https://no/matter) */ body { background: url(https://x/y.png) }")
    assert problems(book, html) == ["s.css: fetches https://x/y.png"]
