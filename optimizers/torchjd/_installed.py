"""TorchJD where it is installed, and an error that says what to do where it is not."""

import importlib
from types import ModuleType


def installed() -> ModuleType:
    """``torchjd.aggregation``.

    Raises:
        ImportError: without TorchJD, saying how to install it.

    Example:
        >>> installed().__name__
        'torchjd.aggregation'
    """
    try:
        return importlib.import_module("torchjd.aggregation")
    except ModuleNotFoundError as error:
        if error.name != "torchjd":
            raise
        raise ImportError("TorchJD is not installed; pip install 'sde-mtl[peers]'") from error
