from pathlib import Path

import numpy as np
import pytest
import torch

from rrg.gradient_log.writer import GradientLogWriter
from sde_mtl import read_log


def test_logged_curvature_is_that_of_the_losses(tmp_path: Path) -> None:
    """Quadratic losses: VᵀH_iV for V the span of the gradients, by its eigenvalues, which no rotation changes."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    curvatures = [torch.diag(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([[2.0, 1.0, 0], [1.0, 2.0, 0], [0, 0, 5.0]])]

    def losses(batch: torch.Tensor) -> list[torch.Tensor]:
        return [0.5 * parameter @ A @ parameter + b @ parameter for A, b in zip(curvatures, batch, strict=True)]

    log = GradientLogWriter(tmp_path / "log", {"tasks": ["a", "b"], "task_weights": [1, 1]}, 3, dim=32)
    batches = [torch.randn(2, 3) for _ in range(6)]
    log.log_frozen(0, batches, losses, [parameter], directions=3)
    log.observe([[batches[0][0]], [batches[0][1]]], torch.eye(2).double())
    log.end_step(0, [0.0, 0.0])
    log.flush()
    hessian = read_log(tmp_path / "log").frozen[0].hessian
    for found, curvature in zip(hessian, curvatures, strict=True):
        assert np.linalg.eigvalsh(found) == pytest.approx(torch.linalg.eigvalsh(curvature.double()).numpy(), rel=1e-5)
    with pytest.raises(ValueError, match="directions = 1 must be 0 or at least 2"):
        log.log_frozen(1, batches, losses, [parameter], directions=1)
