"""Real radiographs with real reports of other patients that tell of the same findings: matched by label."""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import track

from optimizers.files import write_bytes
from rrg.data import BrokenImage, Split, attribution
from rrg.data.problems import is_inside
from rrg.data.study import split_of
from rrg.files import check_exist
from rrg.prepare.matching import CHEXPERT, NIH, NO_FINDING, Conditions, match, read_candidates
from rrg.prepare.output import Contents, DataSet, Plain, link_images, prepared, refuse, shrunk

MATCHED = "radiographs matched to reports by label"


@dataclass(frozen=True)
class PairConfig:
    """Pair labelled chest radiographs with real reports of the same findings, and call it matched by label."""

    index: Path
    """CSV file with the columns file and labels (separated by |), and optionally patient_id."""
    images: Path | None = None
    """Folder that the files are relative to; by default that of the index."""
    reports: Path | None = None
    """Reports: a .tgz or folder of OpenI, or an annotation.json; OpenI's are fetched otherwise."""
    labels: Literal["nih", "chexpert"] = "nih"
    """Names of the labels: those of NIH ChestX-ray14, or of CheXpert."""
    nearest: bool = False
    """Where no report has the same conditions, take one with the largest Jaccard index, if it is above 0."""
    size: int = 0
    """Copy the images as PNG with this shorter side in pixels; 0 links to them where they are."""
    seed: int = 0
    """Decides among reports that match equally well and were used equally often."""
    image_source: str = ""
    """Whom to thank for the images."""
    out: Path = Path("data/pair")
    """Folder to make."""
    skip_bad: bool = False
    """Go on without the images that are missing or, if copied, broken."""

    def __post_init__(self) -> None:
        if self.size < 0 or self.seed < 0:
            raise ValueError(f"size and seed must be >= 0, got {self.size} and {self.seed}")
        check_exist(self, "index", "images", "reports")


@dataclass(frozen=True)
class _Image:
    file: str
    patient: str
    conditions: Conditions


def prepare_pair(config: PairConfig, console: Console | None = None) -> Path:
    """Match, and write the annotation.

    Images are split by patient, reports by their identifier (an annotation's keep their splits), and an image is
    matched within its split. Among equally good reports the one used least so far is taken, so that a report serves
    several images only if there are too few.

    Args:
        config: options.
        console: shows progress and counts if given.

    Returns:
        path of the annotation, whose ``info`` says "radiographs matched to reports by label".

    Raises:
        FileExistsError: if the folder holds another data set.
        ReportsUnavailable: if the reports cannot be had.
        ValueError: for a damaged index or annotation, or images that are missing or broken where ``skip_bad`` is not
            set.
    """
    return prepared(config, _gathered, console, kept=("size",))


def _gathered(config: PairConfig, console: Console | None) -> Contents:
    names = NIH if config.labels == "nih" else CHEXPERT
    left_out: Counter[str] = Counter()
    folder = config.images or config.index.parent
    images = _read_index(config.index, names, left_out)
    images, paths, bad = _place(config, folder, images, console)
    if not config.skip_bad:
        refuse(bad, str(folder))
    left_out["images missing or broken"] = sum(map(len, bad.values()))
    candidates = read_candidates(config.reports, frozenset(names.values()))
    matched = match(
        [(split_of(image.patient), image.conditions) for image in images],
        candidates, nearest=config.nearest, seed=config.seed,
    )  # fmt: skip
    entries: dict[Split, list[Plain]] = defaultdict(list)
    for image, candidate in zip(images, matched, strict=True):
        if candidate is None:
            left_out["images without a matching report"] += 1
            continue
        entries[candidate.split].append({
            "id": image.file, "subject_id": image.patient, "report": candidate.text, "report_id": candidate.id,
            "image_path": [paths[image.file]], "split": candidate.split,
            "matched": "equal" if candidate.conditions == image.conditions else "nearest",
        })  # fmt: skip
    return Contents(entries, _data_set(config, entries), left_out)


def _read_index(index: Path, names: Mapping[str, str], left_out: Counter[str]) -> list[_Image]:
    """Images whose labels can all be expressed."""
    images = []
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lacking = {"file", "labels"} - set(reader.fieldnames or ())
            if lacking:
                raise ValueError(f"{index} lacks the columns {sorted(lacking)}; expected file, labels, patient_id")
            for number, row in enumerate(reader, 2):
                path, labels = row["file"] or "", {part.strip() for part in (row["labels"] or "").split("|")} - {""}
                if not path or not is_inside(path):
                    raise ValueError(f"{index}, line {number}: file {path!r} must be a path inside the images folder")
                unknown = labels - names.keys() - {NO_FINDING}
                if unknown:
                    left_out[f"images labelled {' and '.join(sorted(unknown))}"] += 1
                    continue
                if not labels or (NO_FINDING in labels and len(labels) > 1):
                    left_out["images without a label, or with contradictory ones"] += 1
                    continue
                conditions = frozenset(names[part] for part in labels if part != NO_FINDING)
                images.append(_Image(path, row.get("patient_id") or path, conditions))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {index}: {error}") from error
    if not images:
        expected = ", ".join([*names, NO_FINDING])
        raise ValueError(f"no image of {index} has labels that can be matched; expected some of {expected}")
    return images


def _place(
    config: PairConfig, folder: Path, images: Sequence[_Image], console: Console | None
) -> tuple[list[_Image], dict[str, str], dict[str, list[str]]]:
    """Link or copy the images: those that are there, where, and the names of the others."""
    bad: dict[str, list[str]] = {"missing": [], "broken": []}
    paths = {}
    if not config.size:
        link_images(config.out, folder)
    for image in track(images, "images", console=console, disable=console is None):
        source = folder / image.file
        target = config.out / "images" / Path(image.file).with_suffix(".png")
        if not source.is_file():
            bad["missing"].append(image.file)
            continue
        if config.size and not target.exists():
            try:
                data = shrunk(source.read_bytes(), config.size)
            except BrokenImage:
                bad["broken"].append(image.file)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, data)
        paths[image.file] = str(Path(image.file).with_suffix(".png").as_posix()) if config.size else image.file
    return [image for image in images if image.file in paths], paths, bad


def _data_set(config: PairConfig, entries: Mapping[Split, Sequence[Plain]]) -> DataSet:
    images = f"{config.image_source or f'those of {config.index}'}, {MATCHED}"
    thanks = attribution(images)
    if config.reports is not None and config.reports.suffix == ".json":
        thanks = f"Reports: those of {config.reports}. Images: {images}."
    whole = [entry for some in entries.values() for entry in some]
    details = {
        "matched by equal conditions": sum(entry["matched"] == "equal" for entry in whole),
        "matched by the nearest conditions": sum(entry["matched"] == "nearest" for entry in whole),
        "distinct reports": len({entry["report_id"] for entry in whole}),
    }
    return DataSet(config.index.parent.resolve().name, MATCHED, thanks, "rrg prepare pair", details)
