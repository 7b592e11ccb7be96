"""Studies from an annotation.json in R2Gen's format, as used for IU X-Ray and MIMIC-CXR.

    {"train": [{"id": "CXR1", "report": "…", "image_path": ["CXR1/0.png", "CXR1/1.png"], "split": "train"}, …],
     "val": […], "test": […], "info": {…}}

``image_path`` is one path or a list of them, relative to the folder of images. ``study_id`` and ``subject_id`` are
optional: MIMIC-CXR as R2Gen has it lists every image of a study on its own. ``info``, which ``rrg prepare`` adds and
other readers ignore, says under ``images`` what the images are.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rrg.data.labels import label
from rrg.data.openi import clean
from rrg.data.problems import (
    DamagedAnnotation,
    Entry,
    Problem,
    Verify,
    by_kind,
    check_images,
    is_inside,
    repeated,
    summary,
    write_problems,
)
from rrg.data.study import SPLITS, Corpus, Split, Study


def read_annotation(
    annotation: Path,
    images: Path | None = None,
    *,
    limit: int | None = None,
    verify: Verify = "decode",
    skip_bad: bool = False,
    problems: Path | None = None,
    console: Console | None = None,
) -> Corpus:
    """Read an annotation, checking all of it first.

    Looked for are malformed entries, duplicated ids, patients in two splits, empty reports, and images that are
    missing, broken or outside their folder. Labels are the built-in labeller's, on the reports as written.

    Args:
        annotation: the file.
        images: folder of the images; by default ``images`` beside the file.
        limit: keep only that many entries, a proportional share of every split; only their images are looked at.
        verify: how far images are looked at: "decode", "open" (headers) or "exists".
        skip_bad: leave out the entries with a problem, and say so in the provenance.
        problems: file for the list of all problems; by default ``annotation.problems.json`` beside the annotation, or
            in a temporary folder if that cannot be written.
        console: shows progress, and what is left out, if given.

    Returns:
        the corpus; its ``images`` is what ``info`` says, by default "radiographs". Its provenance holds the SHA-256 of
        the file, and studies, entries and images of each split as used.

    Raises:
        OSError: if the file cannot be read.
        DamagedAnnotation: with all problems, a ValueError.

    Example:
        >>> import tempfile
        >>> entry = {"report": "The heart is enlarged.", "image_path": "a.png"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "annotation.json"
        ...     _ = path.write_text(json.dumps({split: [{"id": split, **entry}] for split in SPLITS}))
        ...     (path.parent / "images").mkdir()
        ...     read_annotation(path)
        Traceback (most recent call last):
        rrg.data.problems.DamagedAnnotation: ...annotation.json: 3 problems in 3 entries
          missing image: 3 (train[0] train, a.png: no such file; val[0] val, a.png: no such file; ...)
        ...
    """
    data = annotation.read_bytes()
    whole = decoded(annotation, data)
    info = whole.get("info", {})
    if not isinstance(info, dict) or not isinstance(info.get("images", ""), str):
        raise DamagedAnnotation(f"{annotation}: info must be an object whose images is text, got {info!r:.200}")
    folder = annotation.parent / "images" if images is None else images
    if not folder.is_dir():
        raise DamagedAnnotation(f"the folder of images {folder} does not exist; pass --images FOLDER")
    entries, wrong = parse(whole)
    if limit is not None:
        entries = proportional(_without(entries, wrong), limit)
    wrong += check_images(entries, folder, verify, console)
    skipped: dict[str, int] = {}
    if wrong:
        total = sum(len(whole[split]) for split in SPLITS)
        listed = write_problems(problems or annotation.with_suffix(".problems.json"), wrong)
        message = f"{annotation}: {len(wrong)} problems in {total} entries\n{summary(wrong)}\nAll are in {listed}."
        if not skip_bad:
            raise DamagedAnnotation(f"{message} Mend them, or leave these entries out with --skip-bad", wrong)
        skipped = {"entries": len({p.place for p in wrong})}
        skipped |= {kind: len({p.place for p in group}) for kind, group in by_kind(wrong).items()}
        entries = _without(entries, wrong)
        if console is not None:
            text = f"{message} {skipped['entries']} entries are left out"
            console.print(text, style="yellow", markup=False, highlight=False)
    provenance: dict[str, Any] = {
        "annotation": str(annotation),
        "sha256": hashlib.sha256(data).hexdigest(),
        "counts": counts(entries),
        "verified": verify,
        "skipped": skipped,
        "info": info,
    }
    if "attribution" in info:
        provenance["attribution"] = info["attribution"]
    studies = tuple(_study(entry, folder) for entry in entries)
    return Corpus("r2gen", studies, info.get("images", "radiographs"), provenance)


def counts(entries: Sequence[Entry]) -> dict[str, dict[str, int]]:
    """Studies, entries and images of each split; studies are what numbers are compared by."""
    of = {split: [entry for entry in entries if entry.split == split] for split in SPLITS}
    return {
        "studies": {split: len({entry.study or entry.id for entry in some}) for split, some in of.items()},
        "entries": {split: len(some) for split, some in of.items()},
        "images": {split: len({path for entry in some for path in entry.images}) for split, some in of.items()},
    }


def proportional(entries: Sequence[Entry], limit: int | None) -> list[Entry]:
    """The first entries of every split, as many as its share of the limit, at least one.

    Raises:
        ValueError: if the limit is below the number of splits.

    Example:
        >>> entries = [Entry("", split, "", "", ()) for split in 7 * ("train",) + ("val",) + 2 * ("test",)]
        >>> [entry.split for entry in proportional(entries, 5)]
        ['train', 'train', 'train', 'val', 'test']
    """
    if limit is None or limit >= len(entries):
        return list(entries)
    sizes = {split: size for split in SPLITS if (size := sum(entry.split == split for entry in entries))}
    if limit < len(sizes):
        raise ValueError(f"limit = {limit} must be >= {len(sizes)}, one entry of every split")
    quota = dict.fromkeys(sizes, 1)
    while sum(quota.values()) < limit:
        quota[min(quota, key=lambda split: quota[split] / sizes[split])] += 1
    kept = []
    for entry in entries:
        if quota[entry.split]:
            quota[entry.split] -= 1
            kept.append(entry)
    return kept


def decoded(annotation: Path, data: bytes) -> dict[str, Any]:
    """The contents of the file.

    Raises:
        DamagedAnnotation: if it is not JSON, or lacks a split.
    """
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedAnnotation(f"{annotation} is not JSON: {error}") from error
    if not isinstance(whole, dict) or not all(isinstance(whole.get(split), list) for split in SPLITS):
        keys = sorted(whole) if isinstance(whole, dict) else type(whole).__name__
        raise DamagedAnnotation(f"{annotation} must hold the lists train, val and test, got {keys!r:.200}")
    return whole


def parse(whole: Mapping[str, Any]) -> tuple[list[Entry], list[Problem]]:
    """The well-formed entries of a decoded annotation, and all its problems but those of the images' files.

    Example:
        >>> entries, problems = parse({"train": [{"id": "a"}], "val": [], "test": []})
        >>> problems[0].detail
        'field image_path must be a path or a list of paths, got None'
    """
    entries, wrong = [], []
    for split in SPLITS:
        for number, plain in enumerate(whole[split]):
            place = f"{split}[{number}]"
            try:
                entry = _entry(plain, place, split)
            except ValueError as error:
                name = str(plain.get("id", "")) if isinstance(plain, dict) else ""
                wrong.append(Problem("malformed entry", place, name, str(error)))
                continue
            entries.append(entry)
            if not clean(entry.report):
                detail = f"nothing is left of {entry.report!r:.60}"
                wrong.append(Problem("empty report", place, entry.id, detail))
            outside = [path for path in entry.images if not is_inside(path)]
            wrong += [Problem("path leaves the images folder", place, entry.id, repr(path)) for path in outside]
    return entries, wrong + repeated(entries)


def _entry(plain: Any, place: str, split: Split) -> Entry:
    if not isinstance(plain, dict):
        raise ValueError(f"an entry must be an object, got {plain!r:.60}")
    paths = plain.get("image_path")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) and path for path in paths):
        raise ValueError(f"field image_path must be a path or a list of paths, got {plain.get('image_path')!r:.60}")
    if not isinstance(plain.get("report"), str):
        raise ValueError(f"field report must be text, got {plain.get('report')!r:.60}")
    if plain.get("split", split) != split:
        raise ValueError(f"field split is {plain['split']!r:.60} in the list {split}")
    names = {field: _name(plain, field) for field in ("id", "study_id", "subject_id")}
    if not names["id"]:
        raise ValueError(f"field id must be text or a number, got {plain.get('id')!r:.60}")
    return Entry(place, split, names["id"], plain["report"], tuple(paths), names["study_id"], names["subject_id"])


def _name(plain: dict[str, Any], field: str) -> str:
    value = plain.get(field)
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise ValueError(f"field {field} must be text or a number, got {value!r:.60}")
    return "" if value is None else str(value)


def _without(entries: Sequence[Entry], problems: Sequence[Problem]) -> list[Entry]:
    bad = {problem.place for problem in problems}
    return [entry for entry in entries if entry.place not in bad]


def _study(entry: Entry, folder: Path) -> Study:
    return Study(
        id=entry.id,
        report=clean(entry.report),
        labels=label(entry.report),
        findings=(),
        split=entry.split,
        full_text=entry.report,
        images=tuple(folder / path for path in entry.images),
        patient=entry.patient,
    )
