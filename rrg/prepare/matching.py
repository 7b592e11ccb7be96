"""Which report tells of the same findings as an image: conditions are compared, pixels are not.

Compared are the conditions that the image labels can express. A report is taken only if it is certain, and says nothing
positive about the others: NIH's labels know nothing of devices, fractures or a wide mediastinum, so a report that tells
of one is not used. Side, size and place of a finding are not compared, so text and pixels may differ there.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrg.data import CONDITIONS, SPLITS, LabelState, Split, read_reports
from rrg.data.annotations import decoded, parse
from rrg.data.labels import label
from rrg.data.openi import clean
from rrg.data.problems import DamagedAnnotation, summary
from rrg.data.study import split_of

Conditions = frozenset[str]

NIH: Mapping[str, str] = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Effusion": "Pleural Effusion",
    "Infiltration": "Lung Opacity",
    "Mass": "Lung Lesion",
    "Nodule": "Lung Lesion",
    "Pleural_Thickening": "Pleural Other",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
"""NIH ChestX-ray14 to CheXpert. Emphysema, Fibrosis and Hernia have no counterpart: their images are left out."""
CHEXPERT: Mapping[str, str] = {condition: condition for condition in CONDITIONS if condition != "No Finding"}
NO_FINDING = "No Finding"


@dataclass(frozen=True)
class Candidate:
    """A report that images can be matched to."""

    id: str
    text: str
    split: Split
    conditions: Conditions


def match(
    images: Sequence[tuple[Split, Conditions]], candidates: Sequence[Candidate], *, nearest: bool = False, seed: int = 0
) -> list[Candidate | None]:
    """A report of the same split for each image, None where there is none.

    Args:
        images: split and positive conditions of each.
        candidates: reports.
        nearest: where no report has equal conditions, take those with the largest |A∩B| / |A∪B| above 0.
        seed: decides among equals.

    Example:
        >>> one = Candidate("a", "Edema.", "train", frozenset({"Edema"}))
        >>> [report and report.id for report in match([("train", frozenset({"Edema"})), ("test", frozenset())], [one])]
        ['a', None]
    """
    rng = np.random.default_rng(seed)
    order = [candidates[i] for i in rng.permutation(len(candidates))]
    by_split: dict[Split, dict[Conditions, list[Candidate]]] = {split: defaultdict(list) for split in SPLITS}
    for candidate in order:
        by_split[candidate.split][candidate.conditions].append(candidate)
    used: Counter[str] = Counter()
    matched: list[Candidate | None] = []
    for split, conditions in images:
        pool = by_split[split].get(conditions, [])
        if not pool and nearest:
            score = {other: _jaccard(conditions, other) for other in by_split[split]}
            best = max(score.values(), default=0.0)
            pool = [c for other, some in by_split[split].items() if score[other] == best > 0 for c in some]
        chosen = min(pool, key=lambda candidate: used[candidate.id], default=None)
        if chosen is not None:
            used[chosen.id] += 1
        matched.append(chosen)
    return matched


def _jaccard(a: Conditions, b: Conditions) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def read_candidates(source: Path | None, compared: Conditions) -> list[Candidate]:
    """Reports that are certain about all conditions and tell of none but the compared ones.

    Args:
        source: an annotation, whose splits are kept; or reports of OpenI, fetched if None.
        compared: conditions.

    Raises:
        ReportsUnavailable: if the reports cannot be had.
        DamagedAnnotation: if an entry of the annotation has a problem.
    """
    if source is not None and source.suffix == ".json":
        entries, problems = parse(decoded(source, source.read_bytes()))
        if problems:
            raise DamagedAnnotation(f"{source}:\n{summary(problems)}", problems)
        texts = [(entry.study or entry.id, entry.report, entry.split) for entry in entries]
    else:
        texts = [(raw.id, raw.findings, split_of(raw.id)) for raw in read_reports(source)]
    candidates: dict[str, Candidate] = {}
    for name, text, split in texts:
        if not clean(text):
            continue
        states = dict(zip(CONDITIONS, label(text), strict=True))
        positive = frozenset(c for c, s in states.items() if s == LabelState.POSITIVE and c != NO_FINDING)
        if LabelState.UNCERTAIN not in states.values() and positive <= compared:
            candidates.setdefault(name, Candidate(name, text, split, positive))
    return list(candidates.values())
