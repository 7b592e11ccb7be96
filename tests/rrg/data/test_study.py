import pytest

from rrg.data.study import Finding


def test_findings_are_checked() -> None:
    with pytest.raises(ValueError, match="'Flu' is none of"):
        Finding("Flu")
    with pytest.raises(ValueError, match=r"severity of Edema must lie in \(0, 1\], got 2"):
        Finding("Edema", severity=2)
