"""MIMIC-CXR from the files that PhysioNet gives to credentialed users; images stay where they are.

    mimic-cxr-jpg/mimic-cxr-2.0.0-split.csv.gz, …-metadata.csv.gz      splits and view positions (2.1.0 works too)
    mimic-cxr-jpg/files/p10/p10000032/s50414267/DICOM.jpg              images
    mimic-cxr-reports.zip, or files/p10/p10000032/s50414267.txt        reports

The report is the FINDINGS section of the final report (:mod:`rrg.prepare.sections`); studies without one are left out.
"""

import csv
import gzip
import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import track

from rrg.data import Split
from rrg.data.openi import clean
from rrg.files import check_exist
from rrg.prepare.output import Contents, DataSet, Plain, link_images, prepared, refuse
from rrg.prepare.sections import findings_of

SPLIT_OF: dict[str, Split] = {"train": "train", "validate": "val", "test": "test"}
ORDER = ("PA", "AP")
"""Frontal views, in the order in which a study's images are given; others follow."""
THANKS = (
    "MIMIC-CXR and MIMIC-CXR-JPG: Johnson et al., Scientific Data 2019 and PhysioNet; PhysioNet Credentialed Health "
    "Data License: neither reports nor images may be shared."
)


@dataclass(frozen=True)
class MimicCxrConfig:
    """MIMIC-CXR: annotation.json from the files of PhysioNet. Images are not copied."""

    root: Path
    """Folder of MIMIC-CXR-JPG, with its split and metadata CSV files and the folder files."""
    reports: Path | None = None
    """mimic-cxr-reports.zip, or the folder that holds files/p10/…; by default that of the images."""
    out: Path = Path("data/mimic_cxr")
    """Folder to make."""
    views: Literal["frontal", "all"] = "frontal"
    """frontal: PA and AP views only."""
    entries: Literal["study", "image"] = "study"
    """study: one entry for a study, with all its views; image: one for each image, as R2Gen has them."""
    skip_bad: bool = False
    """Go on without the studies whose report or images are missing."""

    def __post_init__(self) -> None:
        check_exist(self, "root", "reports")


@dataclass(frozen=True)
class _Image:
    dicom: str
    study: str
    subject: str
    split: Split
    view: str

    @property
    def folder(self) -> str:
        return f"p{self.subject[:2]}/p{self.subject}/s{self.study}"


def prepare_mimic_cxr(config: MimicCxrConfig, console: Console | None = None) -> Path:
    """Make the annotation.

    Args:
        config: options.
        console: shows progress and counts if given.

    Returns:
        path of the annotation.

    Raises:
        FileExistsError: if the folder holds another data set.
        ValueError: for damaged CSV files, a patient in two splits, or reports and images that are missing where
            ``skip_bad`` is not set.
    """
    return prepared(config, _gathered, console)


def _gathered(config: MimicCxrConfig, console: Console | None) -> Contents:
    link_images(config.out, config.root / "files")
    images, left_out = _images(config)
    missing: dict[str, list[str]] = {"missing report": [], "missing image": []}
    entries: dict[Split, list[Plain]] = defaultdict(list)
    with _report_reader(config.reports or config.root) as read:
        for views in track(images.values(), "studies", console=console, disable=console is None):
            first = views[0]
            absent = [f"{v.folder}/{v.dicom}.jpg" for v in views
                      if not (config.root / "files" / v.folder / f"{v.dicom}.jpg").is_file()]  # fmt: skip
            missing["missing image"] += absent
            text = read(f"files/{first.folder}.txt")
            if text is None:
                missing["missing report"].append(f"{first.folder}.txt")
            if text is None or absent:
                left_out["studies whose report or images are missing"] += 1
                continue
            findings = findings_of(text)
            if not clean(findings):
                left_out["studies without a findings section"] += 1
                continue
            entries[first.split] += _entries(views, findings, config.entries)
    if not config.skip_bad:
        refuse(missing, str(config.root))
    data_set = DataSet("MIMIC-CXR", "radiographs", THANKS, "rrg prepare mimic-cxr")
    return Contents(entries, data_set, left_out)


def _entries(views: list[_Image], findings: str, kind: Literal["study", "image"]) -> Iterator[Plain]:
    for some in [views] if kind == "study" else [[view] for view in views]:
        first = some[0]
        yield {
            "id": first.study if kind == "study" else first.dicom,
            "study_id": int(first.study),
            "subject_id": int(first.subject),
            "report": findings,
            "image_path": [f"{view.folder}/{view.dicom}.jpg" for view in some],
            "split": first.split,
        }


def _images(config: MimicCxrConfig) -> tuple[dict[str, list[_Image]], Counter[str]]:
    """Images by study, frontal ones first, and how many were left out."""
    position = {row["dicom_id"]: row["ViewPosition"] for row in _rows(config.root, "metadata", "ViewPosition")}
    left_out: Counter[str] = Counter()
    images = []
    for row in _rows(config.root, "split", "split"):
        if row["split"] not in SPLIT_OF:
            raise ValueError(f"{config.root}: image {row['dicom_id']} has split {row['split']!r}, expected train, …")
        if row["dicom_id"] not in position:
            left_out["images without metadata"] += 1
            continue
        view = position[row["dicom_id"]]
        if config.views == "frontal" and view not in ORDER:
            left_out["images of other views"] += 1
            continue
        images.append(_Image(row["dicom_id"], row["study_id"], row["subject_id"], SPLIT_OF[row["split"]], view))
    by_study: dict[str, list[_Image]] = defaultdict(list)
    for image in sorted(images, key=lambda i: (ORDER.index(i.view) if i.view in ORDER else len(ORDER), i.dicom)):
        by_study[image.study].append(image)
    for study, views in by_study.items():
        if len({view.split for view in views}) > 1:
            raise ValueError(f"{config.root}: the images of study {study} are in two splits")
    return dict(sorted(by_study.items())), left_out


def _rows(root: Path, kind: str, column: str) -> Iterator[dict[str, str]]:
    """Rows of the newest such CSV file."""
    files = sorted(p for p in root.iterdir() if re.fullmatch(rf"mimic-cxr-[\d.]+-{kind}\.csv(\.gz)?", p.name))
    if not files:
        raise ValueError(f"{root} has no mimic-cxr-2.0.0-{kind}.csv or .csv.gz; give the folder of MIMIC-CXR-JPG")
    path = files[-1]
    opener: Callable[..., object] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", newline="", encoding="utf-8") as file:  # type: ignore[attr-defined]
            reader = csv.DictReader(file)
            needed = {"dicom_id", column} | ({"study_id", "subject_id"} if kind == "split" else set())
            lacking = needed - set(reader.fieldnames or ())
            if lacking:
                raise ValueError(f"{path} lacks the columns {sorted(lacking)}")
            yield from reader
    except (EOFError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path}: {error}") from error


@contextmanager
def _report_reader(source: Path) -> Iterator[Callable[[str], str | None]]:
    """A function from the path of a report to its text, None if there is no such report."""
    if source.is_dir():
        yield lambda name: _decoded((source / name).read_bytes()) if (source / name).is_file() else None
        return
    try:
        with zipfile.ZipFile(source) as archive:
            names = set(archive.namelist())
            yield lambda name: _decoded(archive.read(name)) if name in names else None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read {source}: {error}") from error


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
