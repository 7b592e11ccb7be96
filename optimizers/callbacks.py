"""Writers of what steps and monitors report: JSON Lines and TensorBoard."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


def as_record(report: Any) -> dict[str, Any]:
    """A report as a dict that JSON can hold: numbers, booleans and nested lists.

    Args:
        report: :class:`StepDiagnostics`, :class:`ConflictReading`, or a mapping such as ``ConflictMonitor.averages()``.

    Returns:
        One entry a field, None where it is None; numbers that are not finite, which JSON lacks, are None too.

    Raises:
        TypeError: for anything else.

    Example:
        >>> import torch
        >>> as_record({"norms": torch.tensor([1.0, torch.nan]), "valid": True})
        {'norms': [1.0, None], 'valid': True}
    """
    if is_dataclass(report) and not isinstance(report, type):
        return {field.name: _plain(getattr(report, field.name)) for field in fields(report)}
    if isinstance(report, Mapping):
        return {str(name): _plain(value) for name, value in report.items()}
    raise TypeError(f"expected a dataclass such as optimizer.last or a mapping, got {type(report).__name__}")


def scalars(report: Any) -> dict[str, float]:
    """A report as single numbers: ``norms/0``, ``cosines/0,1`` (pairs i < j of what is symmetric); no None.

    Example:
        >>> scalars({"norms": [1.0, 2.0], "cosines": [[1.0, -0.5], [-0.5, 1.0]], "valid": True})
        {'norms/0': 1.0, 'norms/1': 2.0, 'cosines/0,1': -0.5, 'valid': 1.0}
    """
    found: dict[str, float] = {}
    for name, value in as_record(report).items():
        if not isinstance(value, list):
            entries = {name: value}
        elif value and isinstance(value[0], list):
            diagonal = name in ("gramian", "averaged")
            entries = {
                f"{name}/{i},{j}": row[j] for i, row in enumerate(value) for j in range(i + (not diagonal), len(row))
            }
        else:
            entries = {f"{name}/{i}": entry for i, entry in enumerate(value)}
        found.update({key: float(entry) for key, entry in entries.items() if isinstance(entry, bool | int | float)})
    return found


class JSONLWriter:
    """Appends one line of JSON a report, flushed at once; a file that exists is continued.

    A last line that a killed process left unfinished is cut off, so that every line can be read.

    Args:
        path: of the file; its folder must exist.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from optimizers import CAMEGrad
        >>> x = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = CAMEGrad(torch.optim.SGD([x], lr=0.1))
        >>> with tempfile.TemporaryDirectory() as folder, JSONLWriter(f"{folder}/steps.jsonl") as write:
        ...     for step in range(3):
        ...         optimizer.step([x[0] ** 2, x[1] ** 2])
        ...         write(step, optimizer.last)
        ...     lines = write.path.read_text().splitlines()
        >>> json.loads(lines[2])["step"], json.loads(lines[0])["norms"]
        (2, [2.0, 2.0])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        _cut_unfinished_line(self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def __call__(self, step: int, report: Any) -> None:
        """Write a report (see :func:`as_record`) of a step; None is not written."""
        if report is not None:
            line = json.dumps({**as_record(report), "step": step}, allow_nan=False, ensure_ascii=False)
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "JSONLWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class TensorBoardWriter:
    """Adds the scalars of a report to TensorBoard.

    Args:
        writer: a ``torch.utils.tensorboard.SummaryWriter``, or whatever has its ``add_scalar``; the caller closes it.
        prefix: of the tags.
    """

    def __init__(self, writer: Any, prefix: str = "conflict") -> None:
        if not callable(getattr(writer, "add_scalar", None)):
            raise TypeError(f"writer must have add_scalar(tag, value, step), got {type(writer).__name__}")
        self.writer, self.prefix = writer, prefix

    def __call__(self, step: int, report: Any) -> None:
        """Write a report (see :func:`scalars`) of a step; None is not written."""
        if report is not None:
            for name, value in scalars(report).items():
                self.writer.add_scalar(f"{self.prefix}/{name}", value, step)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _cut_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            file.seek(end - 1)
            if file.read(1) == b"\n":
                break
            end -= 1
        file.truncate(end)
