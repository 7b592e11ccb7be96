import pytest

from rrg.data.grammar import phantom_studies
from rrg.data.labels.rules import label
from rrg.data.study import CONDITIONS, LabelState

P, N, U, B = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN, LabelState.BLANK


@pytest.mark.parametrize(
    ("text", "condition", "state"),
    [
        ("The heart is enlarged.", "Cardiomegaly", P),
        ("Mild cardiomegaly, unchanged.", "Cardiomegaly", P),
        ("Heart size is within normal limits.", "Cardiomegaly", N),
        ("Borderline cardiomegaly.", "Cardiomegaly", U),
        ("No focal consolidation, pneumothorax, or pleural effusion.", "Consolidation", N),
        ("No focal consolidation, pneumothorax, or pleural effusion.", "Pleural Effusion", N),
        ("No pneumothorax, but there is a small left effusion.", "Pleural Effusion", P),
        ("Small left effusion without pneumothorax.", "Pleural Effusion", P),
        ("Small left effusion without pneumothorax.", "Pneumothorax", N),
        ("A pneumothorax is not seen.", "Pneumothorax", N),
        ("The effusion has resolved.", "Pleural Effusion", N),
        ("Pneumonia cannot be excluded.", "Pneumonia", U),
        ("Opacity may represent atelectasis.", "Atelectasis", U),
        ("Opacity likely represents atelectasis.", "Atelectasis", P),
        ("Pericardial effusion.", "Pleural Effusion", B),
        ("The lungs are clear.", "Lung Opacity", N),
        ("Right upper lobe opacity.", "Lung Opacity", P),
        ("No significant change in right opacity.", "Lung Opacity", P),
        ("Dual lead pacemaker.", "Support Devices", P),
        ("Old healed rib fracture. No acute fracture.", "Fracture", P),
        ("The patient is rotated.", "Edema", B),
    ],
)
def test_sentences(text: str, condition: str, state: LabelState) -> None:
    assert label(text)[CONDITIONS.index(condition)] == state


def test_no_finding_needs_the_absence_of_the_others_but_devices() -> None:
    last = CONDITIONS.index("No Finding")
    assert label("Lungs are clear. Pacemaker in place.")[last] == P
    assert label("Possible nodule.")[last] == B
    assert label("Cardiomegaly.")[last] == B


def test_labels_of_phantoms_are_those_of_their_construction() -> None:
    wrong = [s.report for s in phantom_studies(1500, seed=7) if label(s.report) != s.labels]
    assert wrong == []


def test_a_labeller_without_negation_would_be_caught() -> None:
    """Negative control: the same comparison fails once negations are removed from the text."""
    studies = phantom_studies(200, seed=7)
    changed = [label(s.report.replace("no ", "")) != s.labels for s in studies]
    assert sum(changed) > 50
