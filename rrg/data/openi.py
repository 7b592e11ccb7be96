"""The report XMLs of the Indiana University chest X-ray collection (OpenI), fetched once and verified.

Demner-Fushman et al., "Preparing a collection of radiology examinations for distribution and retrieval",
JAMIA 2016. The reports are CC BY-NC-ND 4.0: they are read from the user's own copy and never redistributed.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from optimizers.files import write_bytes
from rrg.data.archives import DamagedArchive, members
from rrg.errors import ReportsUnavailable

WHEEL = "torchxrayvision==1.5.7"
MEMBER = "torchxrayvision/data/NLMCXR_reports.tgz"
SHA256 = "8fb6de7eec73d8c3665067ad4bb003ccd57f971ae316d2642e1627ac7268667a"
REPORTS, WITH_FINDINGS, IMAGES = 3955, 3425, 7470
WITH_TWO_IMAGES = 2955
"""Reports with findings and at least two images, those of R2Gen's split: 2,069 + 296 + 590."""


@dataclass(frozen=True)
class RawReport:
    """One report as written."""

    id: str
    findings: str
    impression: str
    mesh: tuple[str, ...]
    """Lower-case expert tags (MeSH ``major``)."""
    images: tuple[str, ...]
    """Identifiers of its radiographs."""


def attribution(images: str = "rendered images, not radiographs") -> str:
    """Whom to thank for the reports, and under which licence; and what the images are."""
    return (
        "Reports: Indiana University Chest X-ray Collection (OpenI, National Library of Medicine), "
        f"Demner-Fushman et al., JAMIA 2016, CC BY-NC-ND 4.0. Images: {images}."
    )


def read_reports(reports: Path | None = None, *, cache_dir: Path | None = None) -> list[RawReport]:
    """All reports, sorted by identifier.

    Args:
        reports: own copy, a .tgz or a folder of XML files; fetched and cached if None.
        cache_dir: where the fetched archive is kept; the user's cache folder by default.

    Raises:
        ReportsUnavailable: without network, for a damaged or unsafe archive, or if no XML is found.
    """
    if reports is None:
        reports = fetch(cache_dir)
    if reports.is_file():
        raw = _read(reports)
        if is_published(reports):
            check_counts(raw)
    elif reports.is_dir():
        raw = [_parse(path.name, path.read_bytes()) for path in reports.rglob("*.xml")]
    else:
        raise ReportsUnavailable(f"{reports} does not exist; give a .tgz or a folder of report XML files")
    if not raw:
        raise ReportsUnavailable(f"no report XML in {reports}; expected files like CXR1001.xml")
    return sorted(raw, key=lambda report: report.id)


def fetch(cache_dir: Path | None = None) -> Path:
    """Path of the verified archive, downloaded on first use with ``pip download``; nothing is imported.

    Raises:
        ReportsUnavailable: if the download fails or its SHA-256 is not the published one.
    """
    folder = (cache_dir or default_cache()) / "openi"
    cached = folder / "NLMCXR_reports.tgz"
    if cached.exists() and is_published(cached):
        return cached
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", temporary, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
            raise ReportsUnavailable(
                f"could not download {WHEEL}, which carries the reports: {reason}. Check the network, pass "
                "--reports PATH to an own copy, or use --dataset phantom"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            data = wheel.read(MEMBER)
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise ReportsUnavailable(f"the reports in {WHEEL} have SHA-256 {digest}, expected {SHA256}; not used")
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(cached, data)
    return cached


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/sde-mtl``, by default ``~/.cache/sde-mtl``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sde-mtl"


def clean(text: str) -> str:
    """Lower-case words and full stops; list numbers, other punctuation and de-identified XXXX are dropped.

    Example:
        >>> clean("1. The XXXX heart is normal.  2. No effusion, or pneumothorax")
        'the heart is normal . no effusion or pneumothorax .'
    """
    text = re.sub(r"(?:^|(?<=[.\s]))\s*\d{1,2}\s*[.)](?=\s|$)", " ", text.lower())
    sentences = []
    for sentence in re.split(r"[.;!?]+(?=\s|$)|\n", text):
        words = re.sub(r"[^a-z0-9/.'-]+", " ", re.sub(r"\bx{2,}\b", " ", sentence)).split()
        words = [word.strip("-./'") for word in words]
        if any(words):
            sentences.append(" ".join(word for word in words if word))
    return " . ".join(sentences) + " ." if sentences else ""


def _read(archive: Path) -> list[RawReport]:
    try:
        return [_parse(name, data) for name, data in members(archive, ".xml")]
    except DamagedArchive as error:
        raise ReportsUnavailable(str(error)) from error


def _parse(name: str, data: bytes) -> RawReport:
    try:
        root: Element = fromstring(data)
    except (ParseError, DefusedXmlException) as error:
        raise ReportsUnavailable(f"{name} is not a well-formed report XML: {error}") from error
    texts = {e.get("Label", ""): (e.text or "").strip() for e in root.iter("AbstractText")}
    identifier = root.find("uId")
    return RawReport(
        id=(identifier.get("id") if identifier is not None else None) or Path(name).stem,
        findings=texts.get("FINDINGS", ""),
        impression=texts.get("IMPRESSION", ""),
        mesh=tuple((e.text or "").strip().lower() for e in root.iter("major")),
        images=tuple(e.get("id", "") for e in root.iter("parentImage")),
    )


def is_published(archive: Path) -> bool:
    """Whether a file is the published NLMCXR_reports.tgz, by its SHA-256."""
    return hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256


def check_counts(reports: list[RawReport]) -> None:
    """Compare the published archive with what is known of it.

    Raises:
        ReportsUnavailable: if a number of reports or images differs.
    """
    described = [report for report in reports if report.findings]
    images = sum(len(report.images) for report in reports)
    counts = (len(reports), len(described), images, sum(len(report.images) > 1 for report in described))
    if counts != (REPORTS, WITH_FINDINGS, IMAGES, WITH_TWO_IMAGES):
        raise ReportsUnavailable(
            f"the archive has {counts} reports, reports with findings, images, and reports with findings and two "
            f"images, expected {(REPORTS, WITH_FINDINGS, IMAGES, WITH_TWO_IMAGES)}: the parser no longer understands it"
        )
