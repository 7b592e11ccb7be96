"""The findings of a report as dictated: plain text with headings such as FINDINGS: and IMPRESSION:."""

import re

FINDINGS = ("FINDINGS", "Findings", "FINDING", "FINDINGS AND IMPRESSION", "FINDINGS/IMPRESSION")
OTHERS = (
    "ADDENDUM", "CLINICAL HISTORY", "CLINICAL INDICATION", "CLINICAL INFORMATION", "COMPARISON", "COMPARISONS",
    "CONCLUSION", "CONCLUSIONS", "DIAGNOSIS", "EXAM", "EXAMINATION", "FINAL REPORT", "HISTORY", "IMPRESSION",
    "Impression", "IMPRESSIONS", "INDICATION", "INDICATIONS", "INTERPRETATION", "NOTE", "NOTIFICATION",
    "NOTIFICATIONS", "OPINION", "PREVIOUS STUDY", "PROCEDURE", "REASON FOR EXAM", "REASON FOR EXAMINATION",
    "RECOMMENDATION", "RECOMMENDATIONS", "RECOMMENDATION(S)", "REFERENCE EXAM", "STUDY", "SUMMARY", "TECHNIQUE",
    "VIEWS", "WET READ",
)  # fmt: skip
"""Headings that end the findings. Others, such as LUNGS:, belong to them."""

_HEADING = re.compile(
    rf"^[ \t]*({'|'.join(re.escape(h) for h in sorted((*FINDINGS, *OTHERS), key=len, reverse=True))})[ \t]*:",
    re.MULTILINE,
)
_FINAL = re.compile(r"^[ \t]*FINAL REPORT[ \t]*:?[ \t]*$", re.MULTILINE)


def findings_of(text: str) -> str:
    """Text of the FINDINGS section of the final report, on one line; "" if it has none.

    A preliminary "wet read" before the final report is passed over. Several such sections are joined.

    Example:
        >>> findings_of("WET READ: Edema.\\n FINAL REPORT\\n FINDINGS:  The lungs\\n are clear.\\n IMPRESSION: Normal.")
        'The lungs are clear.'
    """
    final = list(_FINAL.finditer(text))
    if final:
        text = text[final[-1].end() :]
    headings = list(_HEADING.finditer(text))
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    texts = [text[heading.end() : end] for heading, end in zip(headings, ends, strict=False) if heading[1] in FINDINGS]
    return " ".join(" ".join(texts).split())
