"""What the experts tagged: MeSH terms of the Indiana University collection → conditions, and findings to render."""

from collections.abc import Sequence

from rrg.data.study import CONDITIONS, Finding, LabelState, Side, Zone

MESH: dict[str, str] = {
    "cardiomegaly": "Cardiomegaly",
    "cardiac shadow/enlarged": "Cardiomegaly",
    "mediastinum/enlarged": "Enlarged Cardiomediastinum",
    "mediastinum/prominent": "Enlarged Cardiomediastinum",
    "opacity": "Lung Opacity",
    "infiltrate": "Lung Opacity",
    "airspace disease": "Lung Opacity",
    "markings": "Lung Opacity",
    "lung diseases, interstitial": "Lung Opacity",
    "nodule": "Lung Lesion",
    "mass": "Lung Lesion",
    "cavitation": "Lung Lesion",
    "pulmonary edema": "Edema",
    "pulmonary congestion": "Edema",
    "heart failure": "Edema",
    "consolidation": "Consolidation",
    "pneumonia": "Pneumonia",
    "pulmonary atelectasis": "Atelectasis",
    "volume loss": "Atelectasis",
    "pneumothorax": "Pneumothorax",
    "hydropneumothorax": "Pneumothorax",
    "pleural effusion": "Pleural Effusion",
    "fractures, bone": "Fracture",
    "catheters, indwelling": "Support Devices",
    "implanted medical device": "Support Devices",
    "medical device": "Support Devices",
    "tube, inserted": "Support Devices",
    "surgical instruments": "Support Devices",
    "stents": "Support Devices",
    "spinal fusion": "Support Devices",
    "sutures": "Support Devices",
}
"""Tags by heading, or heading/qualifier where the heading alone does not decide."""


def _condition(tag: str) -> str | None:
    heading, *qualifiers = (part.strip() for part in tag.split("/"))
    if heading in MESH:
        return MESH[heading]
    if "pleura" in (heading, *qualifiers) and heading in ("thickening", "calcinosis", "cicatrix", "pleura"):
        return "Pleural Other"
    return next((MESH[f"{heading}/{q}"] for q in qualifiers if f"{heading}/{q}" in MESH), None)


def mesh_labels(mesh: Sequence[str]) -> frozenset[str]:
    """Conditions that the experts tagged; "No Finding" for the tag "normal".

    Example:
        >>> sorted(mesh_labels(["cardiomegaly/mild", "opacity/lung/base/left"]))
        ['Cardiomegaly', 'Lung Opacity']
    """
    if "normal" in mesh:
        return frozenset({"No Finding"})
    return frozenset(c for tag in mesh if (c := _condition(tag)) is not None)


def mesh_findings(mesh: Sequence[str]) -> tuple[Finding, ...]:
    """Findings with side, zone and severity from the tags' qualifiers.

    Example:
        >>> mesh_findings(["pleural effusion/right/small"])
        (Finding(condition='Pleural Effusion', side='right', zone='lower', severity=0.3),)
    """
    findings = []
    for tag in mesh:
        condition = _condition(tag)
        if condition is not None:
            parts = [part.strip() for part in tag.split("/")[1:]]
            findings.append(Finding(condition, _side(parts), _zone(parts), _severity(parts)))
    return tuple(dict.fromkeys(findings))


def label_findings(states: Sequence[int]) -> tuple[Finding, ...]:
    """Findings to render where there are no tags: the positive conditions at a default place."""
    return tuple(
        Finding(condition)
        for condition, state in zip(CONDITIONS, states, strict=True)
        if state == LabelState.POSITIVE and condition != "No Finding"
    )


def _side(parts: Sequence[str]) -> Side:
    if "bilateral" in parts or ("right" in parts) == ("left" in parts):
        return "both"
    return "right" if "right" in parts else "left"


def _zone(parts: Sequence[str]) -> Zone:
    if any(p in ("apex", "upper lobe") for p in parts):
        return "upper"
    if any(p in ("middle lobe", "lingula", "hilum") for p in parts):
        return "middle"
    return "lower"


def _severity(parts: Sequence[str]) -> float:
    if any(p in ("mild", "small", "borderline", "streaky") for p in parts):
        return 0.3
    if any(p in ("severe", "large", "diffuse") for p in parts):
        return 0.9
    return 0.6
