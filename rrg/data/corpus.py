"""Load a corpus by name, and serve it to training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset

from rrg.data.annotations import read_annotation
from rrg.data.grammar import phantom_studies
from rrg.data.images import DEVIATION, MEAN, study_images
from rrg.data.labels import label, label_findings, mesh_findings
from rrg.data.openi import SHA256, WHEEL, attribution, clean, read_reports
from rrg.data.problems import Verify
from rrg.data.study import SPLITS, Corpus, Study, split_of
from rrg.data.tokenizer import PAD, Tokenizer

Name = Literal["openi", "phantom", "r2gen"]
ENLARGED = 8 / 7
"""Size of an augmented image before its crop; R2Gen crops 224 from 256."""


def load(
    name: Name,
    *,
    reports: Path | None = None,
    limit: int | None = None,
    n_phantom: int = 2000,
    seed: int = 0,
    cache_dir: Path | None = None,
    annotation: Path | None = None,
    images: Path | None = None,
    verify: Verify = "decode",
    skip_bad: bool = False,
    console: Console | None = None,
) -> Corpus:
    """Load "openi" (real reports, rendered images), "phantom" (nothing needed) or "r2gen" (reports and radiographs).

    Args:
        name: of the corpus.
        reports: own copy of the OpenI reports.
        limit: keep only that many studies; of r2gen a proportional share of every split.
        n_phantom: phantom studies to make.
        seed: of the phantom studies.
        cache_dir: for the fetched archive.
        annotation, images, verify, skip_bad, console: for r2gen, as :func:`rrg.data.annotations.read_annotation`.

    Raises:
        ReportsUnavailable: if the real reports cannot be had.
        ValueError: for another name, a damaged annotation, or if a split is empty.

    Example:
        >>> corpus = load("phantom", n_phantom=50)
        >>> len(corpus.studies), corpus.images
        (50, 'rendered images')
    """
    if name == "openi":
        provenance = {"source": str(reports or WHEEL), "attribution": attribution()}
        if reports is None:
            provenance["sha256"] = SHA256
        corpus = Corpus(name, tuple(_openi_studies(reports, cache_dir)[:limit]), provenance=provenance)
    elif name == "phantom":
        studies = tuple(phantom_studies(n_phantom, seed=seed)[:limit])
        corpus = Corpus(name, studies, provenance={"source": "own grammar", "seed": seed})
    elif name == "r2gen":
        if annotation is None:
            raise ValueError("dataset r2gen needs an annotation.json; pass --annotation FILE")
        corpus = read_annotation(annotation, images, limit=limit, verify=verify, skip_bad=skip_bad, console=console)
    else:
        raise ValueError(f"dataset {name!r} must be 'openi', 'phantom' or 'r2gen'")
    for split in SPLITS:
        if not corpus.split(split):
            raise ValueError(f"{len(corpus.studies)} studies of {name} leave the {split} split empty; use more")
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


class ReportDataset(Dataset[dict[str, Tensor]]):
    """Studies as tensors.

    Each item: ``pixel_values`` (V, 1, H, W) float32 standardised with ``MEAN`` and ``DEVIATION``, ``view_mask`` (V,)
    bool, ``input_ids`` (L,) int64 padded, ``labels`` (14,) int64, ``index`` () int64, the study's place. Views that a
    study lacks are 0 and masked.

    An item is asked for by its index, or by a pair (index, key): the key decides the crops of that study, whatever was
    asked for before and by whichever process.

    Args:
        studies: of one split.
        tokenizer: learned on the training split.
        image_size: H = W in pixels.
        max_length: L.
        max_views: V.
        augment: crop items with a key at random from an image enlarged by 8/7. Never flipped: left and right matter.

    Example:
        >>> studies = phantom_studies(2)
        >>> tokenizer = Tokenizer.learn([s.report for s in studies], 300)
        >>> item = ReportDataset(studies, tokenizer, image_size=32, max_length=16)[0]
        >>> {name: tuple(tensor.shape) for name, tensor in item.items()}
        {'pixel_values': (1, 1, 32, 32), 'view_mask': (1,), 'input_ids': (16,), 'labels': (14,), 'index': ()}
    """

    def __init__(
        self,
        studies: Sequence[Study],
        tokenizer: Tokenizer,
        *,
        image_size: int = 128,
        max_length: int = 64,
        max_views: int = 1,
        augment: bool = False,
    ) -> None:
        self.studies = list(studies)
        self.image_size, self.max_views, self.augment = image_size, max_views, augment
        self.input_ids = torch.full((len(studies), max_length), PAD, dtype=torch.int64)
        for row, study in zip(self.input_ids, studies, strict=True):
            ids = tokenizer.encode(study.report, max_length)
            row[: len(ids)] = torch.tensor(ids)
        self.labels = torch.tensor([study.labels for study in studies], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, item: int | tuple[int, int]) -> dict[str, Tensor]:
        index, key = item if isinstance(item, tuple) else (item, None)
        size, views = self.image_size, self.max_views
        study = self.studies[index]
        if self.augment and key is not None:
            enlarged = round(ENLARGED * size)
            rng = np.random.default_rng([key, index])
            corners = rng.integers(0, enlarged - size + 1, (views, 2))
            whole = study_images(study, enlarged, views)
            images = [image[y : y + size, x : x + size] for image, (y, x) in zip(whole, corners, strict=False)]
        else:
            images = study_images(study, size, views)
        pixels = torch.zeros(views, 1, size, size)
        pixels[: len(images), 0] = (torch.from_numpy(np.stack(images)) / 255 - MEAN) / DEVIATION
        return {
            "pixel_values": pixels,
            "view_mask": torch.arange(views) < len(images),
            "input_ids": self.input_ids[index],
            "labels": self.labels[index],
            "index": torch.tensor(index),
        }
