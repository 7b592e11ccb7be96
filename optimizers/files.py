"""Files that appear whole or not at all, whatever kills the process."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; flushed to disk, it takes that name when the block ends.

    After an error the temporary file is gone and ``path`` is as it was.

    Args:
        path: of the file; its folder is there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole(Path(folder) / "a") as temporary:
        ...         _ = temporary.write_text("x")
        ...     [p.name for p in Path(folder).iterdir()]
        ['a']
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file of these bytes."""
    with whole(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a file of this text, in UTF-8, with lines that end in a newline alone."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write JSON with a newline at its end.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")
