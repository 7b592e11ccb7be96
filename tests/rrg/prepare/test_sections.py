import pytest

from rrg.prepare.sections import findings_of

NOTE = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___-year-old with cough  // pneumonia?

 COMPARISON:  ___.

 FINDINGS:

 The lungs are clear.  The heart
 is of normal size.

 LUNGS:  No nodule.

 IMPRESSION:

 No acute process.
"""


def test_findings_between_their_headings() -> None:
    """In own words, in the layout of such notes. LUNGS: is no section of its own."""
    assert findings_of(NOTE) == "The lungs are clear. The heart is of normal size. LUNGS: No nodule."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" WET READ: 3 PM\n Edema.\n FINDINGS: Early.\n FINAL REPORT\n FINDINGS: Late.\n", "Late."),
        ("FINDINGS: One.\nIMPRESSION: Two.\nADDENDUM: Three.", "One."),
        ("FINDINGS AND IMPRESSION:  One.\n", "One."),
        ("IMPRESSION: Two.\n\nFINDINGS: One.", "One."),
        ("FINDINGS: One.\nTECHNIQUE: x\nFINDINGS: Two.", "One. Two."),
        ("Findings: One.\nImpression: Two.", "One."),
        ("FINDINGS: One of\n note: this.\n", "One of note: this."),
        ("FINDINGS:\nIMPRESSION: Two.", ""),
        ("FINDINGS : One.\r\nIMPRESSION: Two.\r\n", "One."),
        (" FINAL REPORT\n HISTORY: cough.\n\n The lungs are clear.\n", ""),
        ("The findings: none.", ""),
        ("", ""),
    ],
)
def test_sections(text: str, found: str) -> None:
    assert findings_of(text) == found
