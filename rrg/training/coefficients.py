"""What an aggregator decided: its coefficients, a line of ``coefficients.csv`` a step, the file of a schedule."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from torch import Tensor

from optimizers.aggregators import WeightSchedule, schedule_heading, schedule_row
from optimizers.files import write_text
from rrg.aggregators import COEFFICIENTS


class CoefficientLog:
    """Appends K numbers a step; a resumed run continues the file.

    Lines are flushed by :meth:`flush`, which belongs before every checkpoint: a killed run then goes on where both are.

    Args:
        folder: of the run; None writes nothing, on all processes but the first.
        tasks: their names.
        first: step from which the run goes on; later lines, and one that a kill cut short, are dropped.

    Raises:
        ValueError: if the file of a run to be resumed lacks steps before ``first``.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> with CoefficientLog(folder, ("rg", "dc"), 0) as log:
        ...     log.add(0, torch.tensor([1.0, 2.0]))
        >>> print((folder / "coefficients.csv").read_text(), end="")
        step,rg,dc
        0,1.0,2.0
    """

    def __init__(self, folder: Path | None, tasks: Sequence[str], first: int) -> None:
        self._file: TextIO | None = None
        if folder is None:
            return
        path = folder / COEFFICIENTS
        heading = schedule_heading(tasks)
        kept = [heading]
        if first > 0:
            whole = [line for line in _lines(path) if line.endswith("\n")]
            kept = whole[: first + 1]
            if kept[:1] != [heading] or len(kept) < first + 1:
                if whole:
                    raise ValueError(f"{path} does not hold the {first} steps of {','.join(tasks)} that were made")
                return  # a run whose aggregator has no coefficients, or of before they were written
        write_text(path, "".join(kept))
        self._file = path.open("a", encoding="utf-8")
        self._path = path

    def add(self, step: int, coefficients: Tensor | None) -> None:
        """Write the (K,) coefficients of a step; None, of an aggregator that has none, removes the file."""
        if self._file is None:
            return
        if coefficients is None:
            self._file.close()
            self._file = None
            self._path.unlink()
        else:
            self._file.write(schedule_row(step, coefficients.tolist()))

    def flush(self) -> None:
        """Write through what was added."""
        if self._file is not None:
            self._file.flush()

    def __enter__(self) -> "CoefficientLog":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()


def mean_coefficients(folder: Path) -> dict[str, float] | None:
    """Mean of each task's coefficient over a run, or None where its aggregator has none."""
    path = folder / COEFFICIENTS
    if len(_lines(path)) < 2:
        return None
    schedule = WeightSchedule.read(path).mean()
    return dict(zip(schedule.tasks, schedule.weights[0].tolist(), strict=True))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
