import math
from pathlib import Path

import pytest
from rich.console import Console

from rrg.data.labels.agreement import AgreementConfig, agreement, cli, markdown
from rrg.data.openi import RawReport, read_reports
from rrg.data.study import CONDITIONS
from rrg.errors import ReportsUnavailable

PAGE = Path(__file__).parents[4] / "book" / "labeller.md"
TEXTS = ["cardiomegaly", "clear lungs", "cardiomegaly", "clear lungs", "cardiomegaly"]
TAGS = [("cardiomegaly",), ("cardiomegaly",), ("normal",), ("scoliosis",), ("no indexing",)]


def test_agreement_by_hand() -> None:
    """Four reports: one hit, one miss, one false alarm, one agreed absence; the fifth is not indexed."""
    row = agreement(TEXTS, TAGS)[CONDITIONS.index("Cardiomegaly")]
    assert (row.tagged, row.precision, row.recall, row.f1, row.kappa) == (2, 0.5, 0.5, 0.5, 0.0)
    edema = agreement(TEXTS, TAGS)[CONDITIONS.index("Edema")]
    assert math.isnan(edema.precision)
    assert edema.cells() == ["Edema", "0", "–", "–", "–", "–"]


def test_the_page_counts() -> None:
    """Of the two reports that only the labeller calls normal, one is tagged as something else, one as cardiomegaly."""
    reports = [RawReport(str(n), text, "", tags, ()) for n, (text, tags) in enumerate(zip(TEXTS, TAGS, strict=True))]
    page = markdown(reports)
    assert "5 reports of the Indiana University collection" in page
    assert '1 of them\nwith "no indexing". On the other 4' in page
    assert '2 reports have No Finding from the labeller but not the tag "normal". 1 of them' in page
    assert "| Cardiomegaly | 2 | 0.500 | 0.500 | 0.500 | 0.000 |" in page
    assert "clear lungs" not in page


@pytest.mark.slow
def test_the_page_in_the_book_is_what_the_command_writes(tmp_path: Path) -> None:
    try:
        read_reports()
    except ReportsUnavailable as error:
        pytest.skip(f"the reports cannot be fetched: {error}")
    cli(AgreementConfig(markdown=tmp_path / "labeller.md"), Console())
    assert PAGE.read_text() == (tmp_path / "labeller.md").read_text()
