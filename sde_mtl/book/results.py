"""Results that cost minutes or a GPU to make and are kept, of book and benchmarks, and how they were made."""

import json
from dataclasses import dataclass
from pathlib import Path

PACKAGED = Path(__file__).parent / "kept_results"
"""In an installed wheel."""
CHECKOUT = tuple(Path(__file__).parents[2] / folder for folder in ("book/results", "benchmarks/results"))


@dataclass(frozen=True)
class Provenance:
    """How one kept result was made.

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


def kept_result(name: str) -> Path:
    """Path of a kept result, whether this package was installed from a wheel or from a checkout.

    Args:
        name: of the file.

    Raises:
        FileNotFoundError: with the names there are.

    Example:
        >>> kept_result("report-generators-cpu-x86-64-2-cores.json").suffix
        '.json'
    """
    for folder in _folders():
        if (folder / name).is_file():
            return folder / name
    known = sorted({path.name for folder in _folders() for path in folder.iterdir()})
    raise FileNotFoundError(f"no kept result {name!r}; there are {', '.join(known) or 'none'}")


def provenances() -> list[Provenance]:
    """Of every kept result of the book, by name.

    Example:
        >>> next(entry.commands for entry in provenances() if entry.name == "phases.json")
        ('python -m sde_mtl.book phases book/results/phases.json',)
    """
    paths = {path.name: path for folder in reversed(_folders()) for path in folder.glob("*.provenance.json")}
    return [_provenance(paths[name]) for name in sorted(paths)]


def _folders() -> list[Path]:
    return [folder for folder in (PACKAGED, *CHECKOUT) if folder.is_dir()]


def _provenance(path: Path) -> Provenance:
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
