"""How kernels are compiled: by numba on first use, kept on disk beside the source, run without the interpreter lock.

Numba keeps a compiled function until its own file changes. Kernels call each other and read constants across files, so
here the key is the source of this folder and of every file with kernels in the kernel's own package: an edit anywhere
compiles all of them anew.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import IndexDataCacheFile


class CodeFiles(IndexDataCacheFile):
    """Compiled code on disk, in files named by the types for which it was compiled.

    Numba numbers them: of two processes that compile a function for different types at the same time, both can take the
    number 1, and one then runs the code of the other.
    """

    def save(self, key: Any, data: Any) -> None:
        types = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        self._data_name_pattern = f"{Path(self._index_name).stem}.{types}.{{number:d}}.nbc"
        super().save(key, data)


def kernel(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function of numbers and numpy arrays; ``options`` are numba's."""
    dispatcher = njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    kept = dispatcher._cache
    kept._cache_file = CodeFiles(kept._cache_path, kept._impl.filename_base, source_stamp(function.__module__))
    return dispatcher


def inlined(function: Callable[..., Any]) -> Any:
    """A kernel that is compiled into its callers: where it is short, handing over arrays costs more than its work."""
    return kernel(function, forceinline=True)


@cache
def source_stamp(module: str) -> str:
    """Hash of all sources that the kernels of a module can depend on."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted({*folder.glob("*.py"), *_siblings(module)}):
        source = path.read_bytes()
        if path.parent == folder or b"optimizers.kernels.compiled" in source:
            digest.update(source)
    return digest.hexdigest()


def _siblings(module: str) -> Iterable[Path]:
    """The sources of the module's top-level package, or those beside a module without a package."""
    package = sys.modules[module.split(".")[0]]
    if hasattr(package, "__path__"):
        return (path for folder in package.__path__ for path in Path(folder).rglob("*.py"))
    return Path(package.__file__).parent.glob("*.py") if package.__file__ else ()
