"""What a built page of the book says about itself, read with the standard library's parser."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

FETCHED = {"script": ("src",), "link": ("href",), "img": ("src", "srcset"), "source": ("src", "srcset"),
           "iframe": ("src",), "video": ("src", "poster"), "audio": ("src",), "object": ("data",), "embed": ("src",),
           "use": ("href",), "input": ("src",)}  # fmt: skip
"""Tags and attributes from which a browser fetches without being asked."""
UNFETCHED_LINKS = {"canonical", "next", "prev", "search", "index", "author", "license", "copyright"}
EXTERNAL = re.compile(r"^(https?:)?//")


@dataclass
class Page:
    """One HTML file.

    Attributes:
        path: of the file.
        fetched: addresses that a browser loads with the page.
        links: href of its anchors.
        ids: targets within it.
        images: (src, alt) of its images; alt is None where there is none.
        inputs, outputs: numbers of code cells and of outputs.
        headings: levels in order, of the article.
        text: visible text.
        language: of the document.
    """

    path: Path
    fetched: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    images: list[tuple[str, str | None]] = field(default_factory=list)
    inputs: int = 0
    outputs: int = 0
    headings: list[int] = field(default_factory=list)
    text: str = ""
    language: str = ""


class _Parser(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page, self.inside, self.article = page, "", 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        classes = found.get("class", "").split()
        page = self.page
        self.inside = tag
        if tag == "html":
            page.language = found.get("lang", "")
        if "id" in found:
            page.ids.add(found["id"])
        if tag == "a" and "href" in found:
            page.links.append(found["href"])
        if tag == "img":
            page.images.append((found.get("src", ""), dict(attributes).get("alt")))
        self.article += tag == "article"
        if self.article and re.fullmatch("h[1-6]", tag):
            page.headings.append(int(tag[1]))
        if not (tag == "link" and UNFETCHED_LINKS & set(found.get("rel", "").split())):
            page.fetched += [found[name] for name in FETCHED.get(tag, ()) if found.get(name)]
        page.inputs += "cell_input" in classes
        page.outputs += "cell_output" in classes
        page.fetched += _urls(found.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.page.fetched += _urls(data)
        elif self.inside != "script":
            self.page.text += data

    def handle_endtag(self, tag: str) -> None:
        self.article -= tag == "article"
        if tag in ("script", "style"):
            self.inside = ""


def _urls(css: str) -> list[str]:
    return re.findall(r"(?:url\(|@import\s+)['\"]?([^'\")\s;]+)", css)


def read_page(path: Path) -> Page:
    """Parse one file."""
    page = Page(path)
    _Parser(page).feed(path.read_text(encoding="utf-8"))
    return page


def external(addresses: list[str]) -> list[str]:
    """Those for which a browser needs a network.

    >>> external(["_static/a.js", "https://example.org/b.js", "//example.org/c.css", "data:image/png;base64,"])
    ['https://example.org/b.js', '//example.org/c.css']
    """
    return [a for address in addresses for a in re.split(r",\s+|\s+", address) if EXTERNAL.match(a)]


def css_addresses(path: Path) -> list[str]:
    """What a style sheet fetches."""
    return _urls(re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S))
