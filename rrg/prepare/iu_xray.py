"""IU X-Ray from the archives of the National Library of Medicine, with their radiographs.

The report is the FINDINGS section. A study's views are the first images that its report names, in that order: mostly
frontal, then lateral. As in R2Gen, studies without findings or with fewer images than views are left out. Every report
of this collection is of another patient, so a split by report is a split by patient.

The download was tried against a server of the tests, not against the library's.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import track

from optimizers.files import write_bytes
from rrg.data import SPLITS, BrokenImage, Split, attribution, read_reports
from rrg.data.annotations import decoded
from rrg.data.archives import DamagedArchive, members
from rrg.data.openi import IMAGES, SHA256, RawReport, clean, default_cache, fetch, is_published
from rrg.data.study import split_of
from rrg.files import check_exist
from rrg.prepare.download import download
from rrg.prepare.output import Contents, DataSet, Plain, prepared, refuse, shrunk

REPORTS_FILE, IMAGES_FILE = "NLMCXR_reports.tgz", "NLMCXR_png.tgz"


@dataclass(frozen=True)
class IuXrayConfig:
    """IU X-Ray: annotation.json and images from the archives of the National Library of Medicine."""

    out: Path = Path("data/iu_xray")
    """Folder to make."""
    reports: Path | None = None
    """Own NLMCXR_reports.tgz, or a folder of its XML files; downloaded otherwise."""
    images: Path | None = None
    """Own NLMCXR_png.tgz, or a folder of its PNG files; downloaded otherwise (1.3 GB)."""
    reports_from: Literal["nlm", "wheel"] = "nlm"
    """Where to download the reports: nlm, or the torchxrayvision wheel on the package index, which carries them."""
    views: Literal[1, 2] = 2
    """Images of a study; studies with fewer are left out."""
    size: int = 256
    """Shorter side of the images in pixels; 0 keeps the files as they are."""
    split_from: Path | None = None
    """R2Gen's annotation.json for IU X-Ray: take its studies and splits, matched by id."""
    skip_bad: bool = False
    """Go on without the studies whose images are missing or broken."""
    url: str = "https://openi.nlm.nih.gov/imgs/collections"
    """Where the archives are."""
    cache: Path | None = None
    """Folder of the downloaded archives; by default in the user's cache."""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size must be >= 0 pixels, got {self.size}")
        check_exist(self, "reports", "images", "split_from")


def prepare_iu_xray(config: IuXrayConfig, console: Console | None = None) -> Path:
    """Make the data set, or go on where it was interrupted.

    Args:
        config: options.
        console: shows progress and counts if given.

    Returns:
        path of the annotation.

    Raises:
        FileExistsError: if the folder holds another data set.
        ReportsUnavailable, DownloadFailed: if the archives cannot be had, or the published ones are not as known.
        DamagedArchive, DamagedAnnotation, ValueError: if the archives or the split file are damaged, or images are
            missing and ``skip_bad`` is not set.
    """
    return prepared(config, _gathered, console, kept=("size",))


def _gathered(config: IuXrayConfig, console: Console | None) -> Contents:
    reports = read_reports(_reports(config, console))
    splits, left_out = _splits(config, reports)
    used = [report for report in reports if report.id in splits]
    bad = _extract(config, used, _images(config, console), console)
    if not config.skip_bad:
        refuse(bad, str(config.images or IMAGES_FILE))
    lacking = {name for names in bad.values() for name in names}
    entries: dict[Split, list[Plain]] = defaultdict(list)
    for report in used:
        paths = _paths(report, config.views)
        if not paths.keys() & lacking:
            split = splits[report.id]
            entries[split].append({
                "id": report.id, "subject_id": report.id, "report": report.findings, "split": split,
                "image_path": list(paths.values()),
            })  # fmt: skip
    thanks = attribution("radiographs of the same collection")
    data_set = DataSet("IU X-Ray", "radiographs", thanks, "rrg prepare iu-xray")
    left_out["images missing or broken"] = len(used) - sum(map(len, entries.values()))
    return Contents(entries, data_set, left_out)


def _reports(config: IuXrayConfig, console: Console | None) -> Path:
    if config.reports is not None:
        return config.reports
    if config.reports_from == "wheel":
        return fetch(config.cache)
    path = _cache(config) / REPORTS_FILE
    if path.exists() and not is_published(path):
        path.unlink()
    return download(f"{config.url}/{REPORTS_FILE}", path, sha256=SHA256, console=console)


def _images(config: IuXrayConfig, console: Console | None) -> Path:
    if config.images is not None:
        return config.images
    return download(f"{config.url}/{IMAGES_FILE}", _cache(config) / IMAGES_FILE, console=console)


def _cache(config: IuXrayConfig) -> Path:
    return (config.cache or default_cache()) / "openi"


def _splits(config: IuXrayConfig, reports: Sequence[RawReport]) -> tuple[dict[str, Split], dict[str, int]]:
    """Split of each study that is used, and how many are not."""
    described = [report for report in reports if clean(report.findings)]
    viewed = [report.id for report in described if len(report.images) >= config.views]
    left_out = {
        "no findings section": len(reports) - len(described),
        f"fewer images than {config.views}": len(described) - len(viewed),
    }
    if config.split_from is None:
        return {name: split_of(name) for name in viewed}, left_out
    theirs = decoded(config.split_from, config.split_from.read_bytes())
    splits: dict[str, Split] = {}
    for split in SPLITS:
        for entry in theirs[split]:
            name = str(entry.get("id") if isinstance(entry, dict) else entry).split("_")[0]
            if splits.setdefault(name, split) != split:
                raise ValueError(f"{config.split_from}: {name} is in {splits[name]} and {split}")
    unknown = sorted(splits.keys() - set(viewed))
    if unknown:
        raise ValueError(
            f"{config.split_from}: {len(unknown)} of its {len(splits)} studies are none with findings and "
            f"{config.views} images here, such as {', '.join(unknown[:3])}; give R2Gen's file for IU X-Ray"
        )
    left_out["not in the split file"] = len(viewed) - len(splits)
    return splits, left_out


def _paths(report: RawReport, views: int) -> dict[str, str]:
    """Where each image goes, by its name in the archive."""
    return {f"{name}.png": f"{report.id}/{view}.png" for view, name in enumerate(report.images[:views])}


def _extract(
    config: IuXrayConfig, reports: Sequence[RawReport], source: Path, console: Console | None
) -> dict[str, list[str]]:
    """Write the images that are not there yet; what is missing and broken."""
    folder = config.out / "images"
    wanted = {name: path for report in reports for name, path in _paths(report, config.views).items()}
    broken, arrived, seen = [], set(), 0
    files = track(_files(source), "images", total=IMAGES, console=console, disable=console is None)
    for name, data in files:
        seen += 1
        if name not in wanted:
            continue
        arrived.add(name)
        target = folder / wanted[name]
        if target.exists():
            continue
        try:
            image = shrunk(data, config.size)
        except BrokenImage:
            broken.append(name)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, image)
    if config.images is None and seen != IMAGES:
        raise DamagedArchive(f"{source} holds {seen} images, expected {IMAGES}; delete it to download it again")
    return {"missing": [name for name in wanted if name not in arrived], "broken": broken}


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        return ((path.name, path.read_bytes()) for path in sorted(source.rglob("*.png")))
    return members(source, ".png")
