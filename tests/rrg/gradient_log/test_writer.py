from pathlib import Path

import numpy as np
import pytest
import torch

from rrg.gradient_log.writer import GradientLogWriter
from sde_mtl import read_log


def test_frozen_traces_are_exact(tmp_path: Path) -> None:
    """n/(n−1)(mean ⟨g_i, g_j⟩ − ⟨ḡ_i, ḡ_j⟩) is the trace of the sample cross-covariance."""
    parameter = torch.nn.Parameter(torch.randn(7))
    batches = [torch.randn(2, 7) for _ in range(10)]
    log = GradientLogWriter(tmp_path / "log", {"tasks": ["a", "b"], "task_weights": [1, 1]}, 7, dim=32)
    log.log_frozen(0, batches, lambda b: [b[0] @ parameter, b[1] @ parameter], [parameter], shard_batches=4)
    log.observe([[batches[0][0]], [batches[0][1]]], torch.eye(2).double())
    log.end_step(0, [0.0, 0.0])
    log.flush()
    frozen = read_log(tmp_path / "log").frozen[0]
    g = torch.stack(batches).double().numpy()
    centred = g - g.mean(0)
    expected = np.einsum("nip,njp->ij", centred, centred) / 9
    measured = 10 / 9 * (frozen.gramian.mean(0) - frozen.mean_gramian)
    assert measured == pytest.approx(expected, rel=1e-9)
