"""Problems of a built book, one line each: ``python tests/book/checker.py book out/book/html``; exits with 1 if any."""

import re
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml
from html_pages import Page, css_addresses, external, read_page

PLAIN = {"recipes", "conformance", "labeller", "glossary", "bibliography", "api"}
"""Pages without cells; api/… too."""
GENERATED = {"genindex.html", "py-modindex.html", "search.html"}
BROKEN = re.compile(
    r"Traceback \(most recent call last\)|\{(?:glue|eq|cite|term|numref|ref|doc)(?::\w+)?\}`|<Figure size|"
    r"<matplotlib\.|<sde_mtl\.[\w.]+ object|\[image: |WARNING: "
)
"""Text that tells of a failed cell, of an unresolved role, or of an object shown by its repr."""


def toc(book: Path) -> list[str]:
    """Every page that the table of contents names, in its order."""

    def files(entry: object) -> list[str]:
        if isinstance(entry, list):
            return [name for item in entry for name in files(item)]
        if not isinstance(entry, dict):
            return []
        own = [str(entry[key]) for key in ("root", "file") if key in entry]
        return own + [n for key in ("parts", "chapters", "sections") for n in files(entry.get(key, []))]

    return files(yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8")))


def problems(book: Path, html: Path) -> list[str]:
    """All problems of the build ``html`` of the sources ``book``."""
    names = toc(book)
    found = [f"{name}: not built" for name in names if not (html / f"{name}.html").is_file()]
    pages = sorted(path.relative_to(book).with_suffix("").as_posix() for path in book.rglob("*.md"))
    found += [f"{name}: not in the table of contents" for name in pages if name not in names]
    built = {path: read_page(path) for path in sorted(html.rglob("*.html")) if "_static" not in path.parts}
    for name in names:
        path = html / f"{name}.html"
        if path in built:
            found += [f"{name}: {problem}" for problem in of_chapter(name, built[path], html)]
    for path, page in built.items():
        name = path.relative_to(html)
        found += [f"{name}: fetches {address}" for address in external(page.fetched)]
        if path.name not in GENERATED and not str(name).startswith("index"):
            found += [f"{name}: {problem}" for problem in broken_links(page, built, html)]
    for path in sorted(html.rglob("*.css")):
        found += [f"{path.relative_to(html)}: fetches {address}" for address in external(css_addresses(path))]
    if not (html / "searchindex.js").is_file():
        found.append("searchindex.js: missing, so that search does not work")
    return found


def of_chapter(name: str, page: Page, html: Path) -> list[str]:
    """Problems of one page by itself."""
    shown = dict.fromkeys(BROKEN.findall(page.text))
    found = [f"shows {text!r}" for text in shown if not (name.startswith("api/") and text.startswith("Traceback"))]
    found += [f"image {Path(src).name} has no alternative text" for src, alt in page.images if not described(src, alt)]
    if page.headings[:1] != [1] or page.headings.count(1) != 1:
        found.append("does not begin with its only first-level heading")
    if not page.language:
        found.append("does not name its language")
    if name not in PLAIN and not name.startswith("api/"):
        if not page.outputs:
            found.append("carries no output")
        if not (html / "_sources" / f"{name}.ipynb").is_file():
            found.append("cannot be downloaded as .ipynb")
        elif f"{name}.ipynb" not in " ".join(page.links):
            found.append("has no link to its .ipynb")
    return found


def described(source: str, alternative: str | None) -> bool:
    """An image has a sentence of its own, which is neither empty nor its file's name.

    >>> described("_images/a1.png", "_images/a1.png"), described("a.png", None), described("a.png", "Two arrows.")
    (False, False, True)
    """
    return bool(alternative) and len(str(alternative)) > 8 and Path(source).name not in str(alternative)


def broken_links(page: Page, pages: dict[Path, Page], html: Path) -> list[str]:
    """Files or anchors of the book that a page links to or loads, and that are not there."""
    found = []
    for address in dict.fromkeys(page.fetched):
        local = unquote(re.sub(r"[?#].*", "", address))
        if local and not re.match(r"^(\w+:|//)", local) and not (page.path.parent / local).exists():
            found.append(f"missing file {address}")
    for link in dict.fromkeys(page.links):
        if re.match(r"^(\w+:|//)", link):
            continue
        address, anchor = urldefrag(unquote(link))
        target = (page.path.parent / address).resolve() if address else page.path.resolve()
        known = {path.resolve(): other for path, other in pages.items()}
        if not target.exists():
            found.append(f"broken link {link}")
        elif anchor and target in known and anchor not in known[target].ids and anchor not in ("", "top"):
            found.append(f"broken anchor {link}")
    return found


def main() -> int:
    book, html = map(Path, sys.argv[1:3])
    found = problems(book, html)
    print("\n".join(found) or f"{len(toc(book))} pages: complete, linked, described, and read without a network")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
