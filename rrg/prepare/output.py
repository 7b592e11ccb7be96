"""What every preparation leaves in its folder: ``images``, and ``annotation.json``, written last and whole."""

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from optimizers.files import write_json, write_text
from rrg.data import SPLITS, BrokenImage, Split
from rrg.data.annotations import counts, parse
from rrg.data.images import UNREADABLE, to_grey
from rrg.data.problems import DamagedAnnotation, summary

MARK = "preparing.json"
"""Options of a preparation that has begun and not ended."""
Plain = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What ``info`` says of a prepared annotation."""

    name: str
    images: str
    """What the images are; every later output says it."""
    attribution: str
    command: str
    details: Plain = dataclasses.field(default_factory=dict)
    """Further counts, shown with the others."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a preparation gathered."""

    entries: Mapping[Split, Sequence[Plain]]
    data_set: DataSet
    left_out: Mapping[str, int]
    """How many were left out, by reason."""


def prepared(
    config: Any, gathered: Callable[[Any, Console | None], Contents], console: Console | None, kept: Sequence[str] = ()
) -> Path:
    """Make a data set, or go on where it was interrupted, or take it as it was made before.

    Args:
        config: options of the preparation, with its folder ``out``.
        gathered: writes the images, and returns what the annotation is made of.
        console: shows progress and counts if given.
        kept: as in :func:`begin`.

    Returns:
        path of the annotation.

    Raises:
        FileExistsError: as :func:`begin`.
        DamagedAnnotation: as :func:`finish`.
    """
    options = _plain(config)
    annotation = begin(config.out, options, kept)
    return annotation or finish(config.out, gathered(config, console), options, console)


def begin(out: Path, options: Plain, kept: Sequence[str] = ()) -> Path | None:
    """Claim the folder for a preparation, or find what an earlier one left.

    Args:
        out: the folder.
        options: of the preparation.
        kept: those that an interrupted preparation must share to go on, because its images depend on them.

    Returns:
        the finished annotation if the same preparation made it, None if it is to be made.

    Raises:
        FileExistsError: if the folder holds other images or another annotation; nothing is changed.
    """
    mark, annotation = out / MARK, out / "annotation.json"
    if annotation.exists():
        made = _read(annotation).get("info")
        _compare(out, made.get("options") if isinstance(made, dict) else None, options)
        return annotation
    if mark.exists():
        made = _read(mark)
        _compare(out, {name: made.get(name) for name in kept}, {name: options[name] for name in kept})
    elif (out / "images").exists() or (out / "images").is_symlink():
        raise FileExistsError(f"{out} already holds images of another origin; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(mark, options)
    return None


def _read(path: Path) -> Plain:
    try:
        whole = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return whole if isinstance(whole, dict) else {}


def _compare(out: Path, made: Plain | None, options: Plain) -> None:
    if made is None:
        raise FileExistsError(f"{out} holds another annotation; choose another --out")
    names = sorted(made.keys() | options.keys())
    changed = [f"{name}: {made.get(name)} → {options.get(name)}" for name in names
               if made.get(name) != options.get(name)]  # fmt: skip
    if changed:
        raise FileExistsError(
            f"{out} holds a data set prepared with other options ({', '.join(changed)}); choose another --out or "
            "remove it"
        )


def finish(out: Path, contents: Contents, options: Plain, console: Console | None = None) -> Path:
    """Check the entries and write the annotation.

    Args:
        out: the folder.
        contents: what the annotation holds and says.
        options: that made it.
        console: shows the counts if given.

    Raises:
        DamagedAnnotation: if an id or a patient is in two splits, a report is empty, or a split has no entry; nothing
            is written.
    """
    whole: Plain = {split: list(contents.entries.get(split, ())) for split in SPLITS}
    parsed, problems = parse(whole)
    if problems:
        raise DamagedAnnotation(f"no annotation was written:\n{summary(problems)}", problems)
    for split in SPLITS:
        if not whole[split]:
            sizes = ", ".join(f"{name} {len(whole[name])}" for name in SPLITS)
            raise DamagedAnnotation(f"no annotation was written: the {split} split is empty ({sizes})")
    whole["info"] = {
        **dataclasses.asdict(contents.data_set),
        "options": options,
        "counts": counts(parsed),
        "left_out": {reason: n for reason, n in contents.left_out.items() if n},
    }
    annotation = out / "annotation.json"
    write_text(annotation, json.dumps(whole))
    (out / MARK).unlink(missing_ok=True)
    if console is not None:
        _show(annotation, whole["info"], console)
    return annotation


def _show(annotation: Path, info: Plain, console: Console) -> None:
    table = Table("split", "studies", "entries", "images", title=f"{info['name']}: {info['images']}")
    for split in SPLITS:
        table.add_row(split, *(f"{info['counts'][what][split]:,}" for what in ("studies", "entries", "images")))
    console.print(table)
    for what, n in {**info["details"], **{f"left out, {reason}": n for reason, n in info["left_out"].items()}}.items():
        console.print(f"{what}: {n:,}", highlight=False)
    console.print(info["attribution"], style="dim", markup=False, highlight=False)
    console.print(f"next: python -m rrg.train --dataset r2gen --annotation {annotation}", markup=False, highlight=False)


def _plain(config: Any) -> Plain:
    """The options of a preparation, without its folder, as JSON has them."""
    plain = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "out"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}


def link_images(out: Path, folder: Path) -> None:
    """Make ``images`` a link to a folder that is used where it is.

    Raises:
        FileExistsError: if it is another folder already.
        OSError: where the file system has no links.
    """
    link = out / "images"
    if not link.is_symlink() and not link.exists():
        link.symlink_to(folder.resolve(), target_is_directory=True)
    elif link.resolve() != folder.resolve():
        raise FileExistsError(f"{link} is {link.resolve()}, not {folder}; choose another --out or remove it")


def shrunk(data: bytes, size: int) -> bytes:
    """An image whose shorter side has at most ``size`` pixels, as PNG with 8 bits of grey; 0 returns the data itself.

    Raises:
        BrokenImage: if the data cannot be decoded, whatever the size.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (60, 40)).save(file, "PNG")
        >>> Image.open(io.BytesIO(shrunk(file.getvalue(), 20))).size
        (30, 20)
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if not size:
                return data
            grey = to_grey(image)
    except UNREADABLE as error:
        raise BrokenImage(str(error)) from error
    scale = min(1.0, size / min(grey.size))
    width, height = (max(1, round(scale * side)) for side in grey.size)
    file = io.BytesIO()
    grey.resize((width, height), Image.Resampling.BILINEAR).save(file, "PNG")
    return file.getvalue()


def refuse(problems: Mapping[str, Sequence[str]], what: str) -> None:
    """End a preparation that met something damaged or missing, naming it.

    Raises:
        ValueError: if there is any.
    """
    numbers = Counter({kind: len(names) for kind, names in problems.items() if names})
    if numbers:
        lines = [f"  {kind}: {n:,} ({', '.join(problems[kind][:3])}{', …' if n > 3 else ''})"
                 for kind, n in numbers.most_common()]  # fmt: skip
        raise ValueError("\n".join([f"{what} is not whole:", *lines, "Mend it, or go on without them: --skip-bad"]))
