"""Values that a page of the book quotes from its own cells."""

from typing import Any

PREFIX = "application/papermill.record/"
"""Of MIME types that only MyST-NB reads; Jupyter shows nothing for them."""


def glue(name: str, value: Any, *, display: bool = False) -> None:
    """Keep what a notebook would display of ``value`` under ``name``, for ``{glue:text}`` in the text of the page.

    What MyST-NB's function of the same name writes, so that a notebook runs where MyST-NB is not installed.

    Args:
        name: unique in the page.
        value: anything that IPython can display.
        display: show it in the cell, too.

    Raises:
        ValueError: outside of IPython and Jupyter.

    Example:
        >>> glue("rate", 0.5)
        Traceback (most recent call last):
        ...
        ValueError: glue('rate', …) works in a notebook only; call it from a cell of IPython or Jupyter
    """
    try:
        from IPython import get_ipython
        from IPython.display import display as show
    except ModuleNotFoundError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None:
        raise ValueError(f"glue({name!r}, …) works in a notebook only; call it from a cell of IPython or Jupyter")
    bundle, metadata = shell.display_formatter.format(value)
    prefix = "" if display else PREFIX
    metadata["scrapbook"] = {"name": name, "mime_prefix": prefix}
    show({prefix + kind: data for kind, data in bundle.items()}, raw=True, metadata=metadata)
