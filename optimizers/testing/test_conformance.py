"""One test a property of the aggregator given by ``--aggregator``.

A property that fails is a finding: the test is an expected failure, and pytest ends with exit status 0. Where it is
named by ``--require``, the test fails and the exit status is 1; so does one that is required and not applicable.
"""

from collections.abc import Callable

import pytest

from optimizers.testing.command import SUBJECT
from optimizers.testing.properties import PROPERTIES
from optimizers.testing.verdict import judge


@pytest.mark.parametrize("name", PROPERTIES)
def test_property(name: str, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]) -> None:
    chosen = getattr(pytestconfig, SUBJECT)
    verdict = judge(PROPERTIES[name], chosen.subject, **chosen.effort)
    record_property("conformance", (verdict.property, verdict.outcome, verdict.reason))
    if verdict.outcome == "holds":
        return
    if name in chosen.required:
        pytest.fail(f"{verdict.outcome}: {verdict.reason}", pytrace=False)
    if verdict.outcome == "fails":
        pytest.xfail(verdict.reason)
    pytest.skip(verdict.reason)
