"""What a study is: a report, its labels, and the findings that its image shows."""

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

CONDITIONS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
"""The 14 conditions of CheXpert (Irvin et al. 2019), in CheXbert's order."""

Side = Literal["right", "left", "both"]
Zone = Literal["upper", "middle", "lower"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class LabelState(IntEnum):
    """What a report says about a condition, with CheXbert's numbers."""

    BLANK = 0
    POSITIVE = 1
    NEGATIVE = 2
    UNCERTAIN = 3


@dataclass(frozen=True)
class Finding:
    """One finding to be rendered; sides are the patient's."""

    condition: str
    side: Side = "both"
    zone: Zone = "lower"
    severity: float = 0.55
    """In (0, 1]: 0.3 mild or small, 0.6 moderate, 0.9 severe or large."""

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise ValueError(f"condition {self.condition!r} is none of {CONDITIONS}")
        if not 0 < self.severity <= 1:
            raise ValueError(f"severity of {self.condition} must lie in (0, 1], got {self.severity}")


@dataclass(frozen=True)
class Study:
    """One examination."""

    id: str
    report: str
    """Lower-case words and full stops, separated by single spaces."""
    labels: tuple[int, ...]
    """14 :class:`LabelState` numbers, what the report says."""
    findings: tuple[Finding, ...]
    """What the rendered image shows; empty where there are files."""
    split: Split
    mesh: tuple[str, ...] = ()
    """Expert tags of the source, such as ``"opacity/lung/base/left"``."""
    full_text: str = ""
    """The report as written: for openi findings and impression, to measure the labeller; empty for phantoms."""
    images: tuple[Path, ...] = ()
    """Files with its views; without any the image is rendered from the findings."""
    patient: str = ""
    """Identifier of the patient, if known."""


@dataclass(frozen=True)
class Corpus:
    """Studies with their provenance."""

    name: str
    studies: tuple[Study, ...]
    images: str = "rendered images"
    """What the images are; every output says it."""
    provenance: dict[str, Any] = field(default_factory=dict)

    def split(self, name: Split) -> list[Study]:
        """Studies of one split."""
        return [study for study in self.studies if study.split == name]


def split_of(study_id: str) -> Split:
    """70 % train, 10 % val, 20 % test, decided by the identifier alone.

    Example:
        >>> split_of("CXR1001") == split_of("CXR1001")
        True
    """
    tenth = hashlib.sha256(study_id.encode()).digest()[0] * 10 // 256
    return "train" if tenth < 7 else "val" if tenth < 8 else "test"
