"""Collects the suite only where an aggregator is given."""

from pathlib import Path

import pytest

from optimizers.testing.command import SUBJECT


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether to leave out the suite: it has no subject in a run of other tests."""
    return True if collection_path.name == "test_conformance.py" and not hasattr(config, SUBJECT) else None
