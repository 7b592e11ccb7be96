"""How the kept results were made: the provenance beside each of them."""

import json
from dataclasses import dataclass
from pathlib import Path

from sde_mtl.book.results import CHECKOUT, PACKAGED


@dataclass(frozen=True)
class Provenance:
    """One kept result.

    Attributes:
        name: of its file.
        commands: that made it.
        date: ISO, or "" if the file does not say.
        torch: version, or "".
        machine: in words, or "".
        seconds: wall time, or None.
    """

    name: str
    commands: tuple[str, ...]
    date: str
    torch: str
    machine: str
    seconds: float | None


def read_provenance(path: str | Path) -> Provenance:
    """What a ``*.provenance.json`` says.

    Args:
        path: of the file.

    Example:
        >>> from sde_mtl.book.results import cached_result
        >>> read_provenance(cached_result("phases.provenance.json")).commands
        ('python -m sde_mtl.book.phases book/results/phases.json',)
    """
    path = Path(path)
    entry = json.loads(path.read_text(encoding="utf-8"))
    command = entry["command"]
    return Provenance(
        name=path.name.replace(".provenance", ""),
        commands=tuple([command] if isinstance(command, str) else command),
        date=str(entry.get("date", "")),
        torch=str(entry.get("versions", {}).get("torch", "")),
        machine=str(entry.get("machine", "")),
        seconds=entry.get("wall_seconds"),
    )


def provenances() -> list[Provenance]:
    """Of every kept result of the book, by name.

    Example:
        >>> all(entry.commands for entry in provenances())
        True
    """
    folders = [folder for folder in (PACKAGED, *CHECKOUT) if folder.is_dir()]
    found = {path.name: path for folder in reversed(folders) for path in folder.glob("*.provenance.json")}
    return [read_provenance(found[name]) for name in sorted(found)]
