"""How kernels are compiled: by numba on first use, kept on disk beside the source, run without the interpreter lock.

Numba keeps a compiled function until its own file changes. Kernels call each other across files, so here the key is the
source of every file with kernels in this package and in the kernel's own: an edit anywhere compiles all of them anew.
"""

import hashlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function of numbers and numpy arrays; ``options`` are numba's."""
    dispatcher = njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    dispatcher._cache._cache_file._source_stamp = source_stamp(function.__module__)
    return dispatcher


def inlined(function: Callable[..., Any]) -> Any:
    """A kernel that is compiled into its callers: where it is short, handing over arrays costs more than its work."""
    return kernel(function, forceinline=True)


@cache
def source_stamp(module: str) -> str:
    """Hash of all sources that the kernels of a module can depend on."""
    file = sys.modules[module].__file__
    folders = {Path(__file__).parent, *([Path(file).parent] if file else [])}
    sources = [path.read_bytes() for folder in sorted(folders) for path in sorted(folder.glob("*.py"))]
    digest = hashlib.sha256()
    for source in sources:
        if b"optimizers.compiled" in source or b"def source_stamp" in source:
            digest.update(source)
    return digest.hexdigest()
