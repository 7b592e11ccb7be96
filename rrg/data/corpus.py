"""Load a corpus by name, and serve it to training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rrg.data.grammar import phantom_studies
from rrg.data.labels import label, label_findings, mesh_findings
from rrg.data.openi import SHA256, WHEEL, attribution, clean, read_reports
from rrg.data.phantom import render, seed_of
from rrg.data.study import Finding, Split, Study, split_of
from rrg.data.tokenizer import PAD, Tokenizer

Name = Literal["openi", "phantom"]
MEAN, DEVIATION = 0.5, 0.25


@dataclass(frozen=True)
class Corpus:
    """Studies with their provenance."""

    name: str
    studies: tuple[Study, ...]
    images: str = "rendered images"
    provenance: dict[str, Any] = field(default_factory=dict)

    def split(self, name: Split) -> list[Study]:
        """Studies of one split."""
        return [study for study in self.studies if study.split == name]


def load(
    name: Name,
    *,
    reports: Path | None = None,
    limit: int | None = None,
    n_phantom: int = 2000,
    seed: int = 0,
    cache_dir: Path | None = None,
) -> Corpus:
    """Load "openi" (real reports, images rendered from their tags) or "phantom" (nothing needed).

    Args:
        name: of the corpus.
        reports: own copy of the OpenI reports.
        limit: keep only that many studies.
        n_phantom: phantom studies to make.
        seed: of the phantom studies.
        cache_dir: for the fetched archive.

    Raises:
        ReportsUnavailable: if the real reports cannot be had.
        ValueError: for another name, or a limit that leaves a split empty.

    Example:
        >>> corpus = load("phantom", n_phantom=50)
        >>> len(corpus.studies), corpus.images
        (50, 'rendered images')
    """
    if name == "openi":
        studies = _openi_studies(reports, cache_dir)
        provenance: dict[str, Any] = {"source": str(reports or WHEEL), "attribution": attribution()}
        if reports is None:
            provenance["sha256"] = SHA256
    elif name == "phantom":
        studies = phantom_studies(n_phantom, seed=seed)
        provenance = {"source": "own grammar", "seed": seed}
    else:
        raise ValueError(f"dataset {name!r} must be 'openi' or 'phantom'")
    studies = studies[:limit]
    corpus = Corpus(name, tuple(studies), provenance=provenance)
    for split in ("train", "val", "test"):
        if not corpus.split(split):
            raise ValueError(f"{len(studies)} studies of {name} leave the {split} split empty; use more")
    return corpus


def _openi_studies(reports: Path | None, cache_dir: Path | None) -> list[Study]:
    studies = []
    for raw in read_reports(reports, cache_dir=cache_dir):
        text = clean(raw.findings)
        if not text:
            continue
        labels = label(text)
        tagged = bool(raw.mesh) and "no indexing" not in raw.mesh
        findings = mesh_findings(raw.mesh) if tagged else label_findings(labels)
        written = f"{raw.findings}\n{raw.impression}"
        studies.append(Study(raw.id, text, labels, findings, split_of(raw.id), raw.mesh, written))
    return studies


@lru_cache(maxsize=8192)
def _rendered(findings: tuple[Finding, ...], study_id: str, size: int) -> NDArray[np.uint8]:
    """Kept for the process, so that several runs on one corpus render it once."""
    return render(findings, seed=seed_of(study_id), size=size)


class ReportDataset(Dataset[dict[str, Tensor]]):
    """Studies as tensors; images are rendered once and kept as uint8.

    Each item: ``pixel_values`` (1, H, W) float32 standardised, ``input_ids`` (L,) int64 padded,
    ``attention_mask`` (L,) int64, ``labels`` (14,) int64.

    Args:
        studies: of one split.
        tokenizer: learned on the training split.
        image_size: H = W in pixels.
        max_length: L.

    Example:
        >>> studies = phantom_studies(2)
        >>> tokenizer = Tokenizer.learn([s.report for s in studies], 300)
        >>> item = ReportDataset(studies, tokenizer, image_size=32, max_length=16)[0]
        >>> {name: tuple(tensor.shape) for name, tensor in item.items()}
        {'pixel_values': (1, 32, 32), 'input_ids': (16,), 'attention_mask': (16,), 'labels': (14,)}
    """

    def __init__(
        self, studies: Sequence[Study], tokenizer: Tokenizer, *, image_size: int = 128, max_length: int = 64
    ) -> None:
        self.studies = list(studies)
        self.image_size = image_size
        self.input_ids = torch.full((len(studies), max_length), PAD, dtype=torch.int64)
        for row, study in zip(self.input_ids, studies, strict=True):
            ids = tokenizer.encode(study.report, max_length)
            row[: len(ids)] = torch.tensor(ids)
        self.labels = torch.tensor([study.labels for study in studies], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        study = self.studies[index]
        image = torch.tensor(_rendered(study.findings, study.id, self.image_size))[None] / 255
        ids = self.input_ids[index]
        return {
            "pixel_values": (image - MEAN) / DEVIATION,
            "input_ids": ids,
            "attention_mask": (ids != PAD).long(),
            "labels": self.labels[index],
        }
