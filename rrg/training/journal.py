"""The running record of a training: one JSON line every few steps, and TensorBoard events."""

import json
from pathlib import Path
from typing import Any, TextIO

from optimizers.files import write_text

RENAMED = {"conflict": "pair_conflict_share"}
"""Old names in ``metrics.jsonl``, and the new ones."""


class Journal:
    """Appends records to ``metrics.jsonl``, each written through at once; a resumed run continues the file.

    Args:
        folder: of the run; None keeps records without writing them, on all processes but the first.
        first: step from which the run goes on; later lines, and one that a kill cut short, are dropped.
        tensorboard: also write TensorBoard events.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Journal(folder, 0) as journal:
        ...     journal.add({"step": 0, "rg": 2.5})
        ...     journal.add({"step": 1, "rg": 2.0})
        >>> with Journal(folder, 1) as journal:
        ...     journal.records
        [{'step': 0, 'rg': 2.5}]
    """

    def __init__(self, folder: Path | None, first: int, *, tensorboard: bool = False) -> None:
        self.records: list[dict[str, Any]] = []
        self._file: TextIO | None = None
        self._writer: Any = None
        if folder is None:
            return
        path = folder / "metrics.jsonl"
        if first > 0 and path.exists():
            lines = path.read_text().splitlines(keepends=True)
            read = [json.loads(line) for line in lines if line.endswith("\n")]
            whole = [{RENAMED.get(name, name): value for name, value in record.items()} for record in read]
            self.records = [record for record in whole if record["step"] < first]
        write_text(path, "".join(json.dumps(record) + "\n" for record in self.records))
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first)

    def add(self, record: dict[str, Any]) -> None:
        """Keep, write and flush a record, which has a ``step``."""
        self.records.append(record)
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        if self._writer is not None:
            for name, value in record.items():
                if name != "step":
                    self._writer.add_scalar(name, float(value), record["step"])
            self._writer.flush()

    def mean_of_last_tenth(self, names: tuple[str, ...]) -> dict[str, float]:
        """Means over the last tenth of the records."""
        last = self.records[-max(1, len(self.records) // 10) :]
        return {name: sum(record[name] for record in last) / len(last) for name in names}

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()
