"""What is wrong with the entries of an annotation: found all at once, before training starts."""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image
from rich.console import Console
from rich.progress import track

from optimizers.files import write_json
from rrg.data.images import UNREADABLE, BrokenImage, read_image
from rrg.data.study import Split

Verify = Literal["decode", "open", "exists"]
Kind = Literal[
    "malformed entry", "duplicated id", "empty report", "path leaves the images folder", "missing image",
    "broken image", "patient in two splits",
]  # fmt: skip
SHOWN = 3
"""Examples of each kind in a message."""
BATCH = 4096
"""Images handed to the threads at once."""


@dataclass(frozen=True)
class Entry:
    """One entry of an annotation, with its fields checked."""

    place: str
    """Where it stands, such as ``train[17]``."""
    split: Split
    id: str
    report: str
    images: tuple[str, ...]
    """Relative to the folder of images."""
    study: str = ""
    patient: str = ""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one entry."""

    kind: Kind
    place: str
    id: str
    detail: str


class DamagedAnnotation(ValueError):
    """An annotation that cannot be used as it is.

    Attributes:
        problems: all of them; empty where the file as a whole is at fault.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


def repeated(entries: Sequence[Entry]) -> list[Problem]:
    """Ids that stand twice, and patients (studies where no patient is known) in two splits.

    What stands in test is left alone, then what stands in val, so that leaving the others out keeps a benchmark whole.

    Example:
        >>> entries = [Entry("train[0]", "train", "a", "x", ("a.png",)), Entry("test[0]", "test", "a", "x", ("a.png",))]
        >>> [(problem.kind, problem.place) for problem in repeated(entries)]
        [('duplicated id', 'train[0]')]
    """
    wrong = []
    first: dict[str, Entry] = {}
    home: dict[tuple[str, str], Split] = {}
    for entry in sorted(entries, key=lambda entry: ("test", "val", "train").index(entry.split)):
        other = first.setdefault(entry.id, entry)
        if other is not entry:
            wrong.append(Problem("duplicated id", entry.place, entry.id, f"also {other.place}"))
        owner = ("patient", entry.patient) if entry.patient else ("study", entry.study)
        split = home.setdefault(owner, entry.split) if owner[1] else entry.split
        if split != entry.split:
            detail = f"{' '.join(owner)} is also in {split}"
            wrong.append(Problem("patient in two splits", entry.place, entry.id, detail))
    return wrong


def check_images(
    entries: Sequence[Entry], folder: Path, verify: Verify, console: Console | None = None
) -> list[Problem]:
    """Missing and broken images, every file looked at once, by threads.

    Args:
        entries: whose images are looked at, those inside the folder.
        folder: of the images.
        verify: "decode" decodes fully, "open" reads headers, "exists" asks for files that are not empty.
        console: shows progress if given.
    """
    paths = list(dict.fromkeys(path for entry in entries for path in entry.images if is_inside(path)))
    with ThreadPoolExecutor() as pool:

        def faults() -> Iterator[tuple[Kind, str] | None]:
            for start in range(0, len(paths), BATCH):
                yield from pool.map(lambda path: _fault(folder / path, verify), paths[start : start + BATCH])

        shown = track(
            faults(), "check the images", total=len(paths), console=console, disable=console is None, transient=True
        )
        bad = {path: fault for path, fault in zip(paths, shown, strict=True) if fault is not None}
    return [
        Problem(bad[path][0], entry.place, entry.id, f"{path}: {bad[path][1]}")
        for entry in entries
        for path in entry.images
        if path in bad
    ]


def is_inside(path: str) -> bool:
    """Whether a relative path stays where it begins.

    Example:
        >>> [is_inside(path) for path in ("a/0.png", "../a.png", "/a.png")]
        [True, False, False]
    """
    parts = PurePosixPath(path.replace("\\", "/"))
    return not (parts.is_absolute() or ".." in parts.parts or Path(path).is_absolute() or "\0" in path)


def _fault(path: Path, verify: Verify) -> tuple[Kind, str] | None:
    try:
        if not path.is_file():
            return "missing image", "no such file"
        if path.stat().st_size == 0:
            return "broken image", "the file is empty"
        if verify == "decode":
            read_image(path, 32)
        elif verify == "open":
            Image.open(path).close()
    except BrokenImage as error:
        return "broken image", str(error.__cause__)
    except UNREADABLE as error:
        return "broken image", str(error)
    return None


def by_kind(problems: Iterable[Problem]) -> dict[Kind, list[Problem]]:
    """The problems of each kind, the most frequent kind first."""
    groups: dict[Kind, list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.kind].append(problem)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def summary(problems: Sequence[Problem]) -> str:
    """One line a kind, with its count and first examples.

    Example:
        >>> print(summary([Problem("empty report", "val[0]", "CXR1", "nothing is left of ''")]))
          empty report: 1 (val[0] CXR1, nothing is left of '')
    """
    lines = []
    for kind, group in by_kind(problems).items():
        examples = [f"{f'{p.place} {p.id}'.strip()}, {p.detail}" for p in group[:SHOWN]]
        lines.append(f"  {kind}: {len(group)} ({'; '.join(examples)}{'; …' if len(group) > SHOWN else ''})")
    return "\n".join(lines)


def write_problems(path: Path, problems: Sequence[Problem]) -> Path:
    """List all problems in a JSON file; in a new temporary folder where the path cannot be written.

    Returns:
        where the list is.
    """
    plain = [asdict(problem) for problem in problems]
    try:
        write_json(path, plain)
    except OSError:
        path = Path(tempfile.mkdtemp(prefix="rrg-")) / path.name
        write_json(path, plain)
    return path
