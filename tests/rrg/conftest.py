import pytest

from rrg.metrics import captions


@pytest.fixture
def java() -> None:
    """Skips the test where METEOR cannot run."""
    problem = captions.java_problem()
    if problem is not None:
        pytest.skip(problem)


@pytest.fixture(autouse=True)
def _without_java(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR takes seconds to start; only tests that ask for Java wait for it."""
    if "java" not in request.fixturenames:
        monkeypatch.setattr(captions, "java_problem", lambda: "switched off for this test")
