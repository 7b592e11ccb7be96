"""The contestants: one library or loop a file. A peer that is not installed is named and left out."""

import importlib
from collections.abc import Sequence
from types import ModuleType

from rich.console import Console


def load(names: Sequence[str], console: Console) -> dict[str, ModuleType]:
    """Import peers by the names of their files, as far as their packages are installed.

    A peer's module has ``PACKAGES``, the distributions whose versions matter.
    """
    found = {}
    for name in names:
        try:
            found[name] = importlib.import_module(f"peers.{name}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] in ("peers", "optimizers", "sde_mtl", "rrg"):
                raise
            console.print(f"without {name}: {error.name} is not installed, pip install -e .\\[peers] gives it")
    return found
