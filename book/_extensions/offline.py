"""What the book needs to be read without a network: MathJax beside it, and executed notebooks to download."""

import importlib
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MATHJAX = ("tex-chtml.js", "a11y", "input/tex/extensions", "output/chtml", "sre", "ui")
"""Of the package sphinx-mathjax-offline, which holds every variant of MathJax 3."""


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put MathJax where ``mathjax_path`` looks for it."""
    if error is not None or app.builder.format != "html":
        return
    (package,) = importlib.import_module("sphinx-mathjax-offline").__path__
    for name in MATHJAX:
        source, target = Path(package, "static/mathjax", name), Path(app.outdir, "_static/mathjax", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)


def offer_notebook(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Add .ipynb to the download button of every executed page."""
    executed = Path(app.outdir).parent / "jupyter_execute" / f"{page}.ipynb"
    if doctree is None or not executed.exists():
        return
    target = Path(app.outdir, "_sources", f"{page}.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(executed, target)
    context["ipynb_source"] = f"{page}.ipynb"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("comments_config", {}, "html")  # Jupyter Book sets it, for an extension that is left out
    app.connect("build-finished", copy_mathjax)
    app.connect("html-page-context", offer_notebook, priority=400)  # before the theme makes its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
