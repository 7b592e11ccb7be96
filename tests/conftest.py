import os

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("default", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
torch.set_num_threads(1)  # more threads only wait for each other on small operations, and long on a busy machine


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
