import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by numpy's and torch's libraries as they load, and in subprocesses

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("default", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
torch.set_num_threads(1)  # a process is a worker of several: more threads would only wait for each other


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


LONGEST = ("tests/test_demo.py", "tests/sde_mtl/theory/test_theory.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
