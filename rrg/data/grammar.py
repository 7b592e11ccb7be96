"""Phantom studies: findings sampled with plausible co-occurrence, reports from an own grammar.

The labels are known by construction; :func:`rrg.data.labels.label` must find the same (a test).
"""

import numpy as np

from rrg.data.openi import clean
from rrg.data.study import CONDITIONS, Finding, LabelState, Study, split_of

PREVALENCE = {
    "Cardiomegaly": 0.14,
    "Enlarged Cardiomediastinum": 0.04,
    "Lung Opacity": 0.14,
    "Lung Lesion": 0.06,
    "Edema": 0.05,
    "Consolidation": 0.05,
    "Pneumonia": 0.05,
    "Atelectasis": 0.12,
    "Pneumothorax": 0.03,
    "Pleural Effusion": 0.09,
    "Pleural Other": 0.04,
    "Fracture": 0.04,
    "Support Devices": 0.12,
}
TOGETHER = {("Edema", "Cardiomegaly"): 0.6, ("Edema", "Pleural Effusion"): 0.5, ("Pneumonia", "Lung Opacity"): 0.4,
            ("Pleural Effusion", "Atelectasis"): 0.4}  # fmt: skip
DEGREES = {0.3: ("mild", "small"), 0.6: ("moderate", "moderate"), 0.9: ("severe", "large")}
PLACES = {"upper": "upper lobe", "middle": "mid lung", "lower": "lower lobe"}

POSITIVE = {
    "Cardiomegaly": (
        "the heart is enlarged",
        "there is {degree} cardiomegaly",
        "{degree} cardiomegaly is present",
    ),
    "Enlarged Cardiomediastinum": ("the mediastinum is widened", "there is widening of the mediastinum"),
    "Lung Opacity": ("there is a {size} opacity in the {place}", "{size} {place} opacity is seen"),
    "Lung Lesion": ("a {size} nodule is seen in the {place}", "there is a {size} {place} nodule"),
    "Edema": ("there is {degree} pulmonary edema", "{degree} pulmonary vascular congestion is present"),
    "Consolidation": ("there is consolidation in the {place}", "{place} consolidation is seen"),
    "Pneumonia": ("findings of pneumonia in the {place}", "there is {place} pneumonia"),
    "Atelectasis": (
        "there is {degree} {side} basilar atelectasis",
        "{degree} atelectasis at the {side} base",
    ),
    "Pneumothorax": ("there is a {size} {side} pneumothorax", "{size} pneumothorax on the {side}"),
    "Pleural Effusion": (
        "there is a {size} {side} pleural effusion",
        "{size} {side} pleural effusion is present",
    ),
    "Pleural Other": ("{side} pleural thickening is seen", "there is {degree} {side} pleural thickening"),
    "Fracture": ("there is a {side} rib fracture", "a {side} sided rib fracture is seen"),
    "Support Devices": (
        "a pacemaker is in place",
        "a central venous catheter is present",
        "sternotomy wires are seen",
    ),
}
NEGATIVE = {
    "Cardiomegaly": ("the heart is normal in size", "heart size is within normal limits"),
    "Enlarged Cardiomediastinum": ("the mediastinum is unremarkable", "mediastinal contours are normal"),
    "Lung Opacity": ("the lungs are clear", "no focal airspace disease"),
    "Pneumothorax": ("there is no pneumothorax", "no pneumothorax is seen"),
    "Pleural Effusion": ("no pleural effusion", "there is no pleural effusion"),
    "Fracture": ("no acute fracture",),
}
UNCERTAIN = {
    "Lung Lesion": "possible {place} nodule",
    "Pneumonia": "pneumonia cannot be excluded",
    "Pleural Effusion": "questionable {side} pleural effusion",
}


def phantom_studies(n: int, *, seed: int = 0) -> list[Study]:
    """n studies whose labels are known by construction.

    Args:
        n: number of studies ≥ 1.
        seed: of everything that is drawn.

    Raises:
        ValueError: for n < 1.

    Example:
        >>> study = phantom_studies(3, seed=1)[0]
        >>> len(study.labels), study.report.endswith(" .")
        (14, True)
    """
    if n < 1:
        raise ValueError(f"n = {n} studies must be at least 1")
    return [_study(f"phantom-{seed}-{index}", np.random.default_rng([seed, index])) for index in range(n)]


def _study(identifier: str, rng: np.random.Generator) -> Study:
    present = {c for c, p in PREVALENCE.items() if rng.random() < p}
    present |= {other for (c, other), p in TOGETHER.items() if c in present and rng.random() < p}
    states = dict.fromkeys(CONDITIONS, LabelState.BLANK)
    findings, sentences = [], []
    for condition in CONDITIONS[:-1]:
        if condition in present:
            finding = Finding(
                condition,
                str(rng.choice(["right", "left"])),  # type: ignore[arg-type]
                str(rng.choice(["upper", "middle", "lower"])),  # type: ignore[arg-type]
                float(rng.choice([0.3, 0.6, 0.9])),
            )
            findings.append(finding)
            states[condition] = LabelState.POSITIVE
            sentences.append(_say(str(rng.choice(POSITIVE[condition])), finding))
        elif condition in NEGATIVE and rng.random() < 0.7 and _deniable(condition, present):
            states[condition] = LabelState.NEGATIVE
            sentences.append(str(rng.choice(NEGATIVE[condition])))
        elif condition in UNCERTAIN and rng.random() < 0.03:
            states[condition] = LabelState.UNCERTAIN
            sentences.append(_say(UNCERTAIN[condition], Finding(condition, "right")))
    abnormal = {LabelState.POSITIVE, LabelState.UNCERTAIN}
    if not any(states[c] in abnormal for c in CONDITIONS if c not in ("Support Devices", "No Finding")):
        states["No Finding"] = LabelState.POSITIVE
    rng.shuffle(sentences)
    report = clean(". ".join(sentences or ["no acute abnormality"]) + ".")
    labels = tuple(int(states[c]) for c in CONDITIONS)
    return Study(identifier, report, labels, tuple(findings), split_of(identifier))


def _deniable(condition: str, present: set[str]) -> bool:
    """The lungs are not called clear beside a finding in them."""
    in_lungs = {"Consolidation", "Pneumonia", "Lung Lesion", "Edema", "Atelectasis"}
    return condition != "Lung Opacity" or not present & in_lungs


def _say(template: str, finding: Finding) -> str:
    degree, size = DEGREES.get(finding.severity, ("moderate", "moderate"))
    place = f"{finding.side} {PLACES[finding.zone]}"
    return template.format(degree=degree, size=size, side=finding.side, place=place)
