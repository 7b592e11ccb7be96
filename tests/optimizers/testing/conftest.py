"""The broken aggregators, one a property."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def broken() -> dict[str, Callable]:
    spec = importlib.util.spec_from_file_location("broken", Path(__file__).with_name("broken.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.BROKEN)
