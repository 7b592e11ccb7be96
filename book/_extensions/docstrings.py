"""Plain docstrings as reStructuredText: norms are no substitutions, and a colon in a sentence ends no type."""

import re
from typing import Any

from sphinx.application import Sphinx

kept: dict[str, list[str]] = {}


def plain(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape ``|`` outside of code."""
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else escaped(line) for line in lines]
    if what in ("attribute", "data"):
        kept[name] = list(lines)


def restore(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Undo what napoleon does to attributes: it takes the start of "Peak learning rate: …" for a type."""
    lines[:] = kept.pop(name, lines)


def escaped(line: str) -> str:
    """
    >>> print(escaped("the largest |x| of ``a | b``"))
    the largest \\|x\\| of ``a | b``
    """
    parts = re.split(r"(``.*?``)", line)
    return "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", restore, priority=600)
    return {"parallel_read_safe": True}
