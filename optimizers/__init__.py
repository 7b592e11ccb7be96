"""Multi-task optimizers in torch: CAME-Grad and its rivals, computed exactly from the K×K Gramian.

    came_grad, came_grad_coefficients   CAME-Grad on gradients, or as an aggregator on their Gramian
    linear                              linear scalarization, the baseline
    mgda, pcgrad, cagrad                rivals
    solve_dual                          the conflict-averse dual, solved exactly
    CAMEGrad, MultiTaskOptimizer        the training step around any torch optimizer
    torchjd                             TorchJD's aggregators by name, where it is installed
    oracle                              cvxpy's answer to the same problems

Aggregators share one signature, ``aggregator(gramian, task_weights) -> coefficients``, and accept any
leading batch dimensions.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from optimizers.cagrad import cagrad
from optimizers.came_grad import (
    CAMEGradResult,
    SolverWarning,
    came_grad,
    came_grad_coefficients,
    came_grad_stages,
)
from optimizers.came_grad_optimizer import CAMEGrad
from optimizers.combination import JacobianAggregator
from optimizers.diagnostics import NonFiniteError, StepDiagnostics
from optimizers.dual import DualSolution, solve_dual
from optimizers.gramian import gramian
from optimizers.linear import linear
from optimizers.mgda import mgda
from optimizers.pcgrad import pcgrad
from optimizers.step import MultiTaskOptimizer
from optimizers.task_gradients import task_gradients

if TYPE_CHECKING:
    from optimizers import oracle

__all__ = [
    "CAMEGrad",
    "CAMEGradResult",
    "DualSolution",
    "JacobianAggregator",
    "MultiTaskOptimizer",
    "NonFiniteError",
    "SolverWarning",
    "StepDiagnostics",
    "cagrad",
    "came_grad",
    "came_grad_coefficients",
    "came_grad_stages",
    "gramian",
    "linear",
    "mgda",
    "oracle",
    "pcgrad",
    "solve_dual",
    "task_gradients",
]


def __getattr__(name: str) -> ModuleType:
    """Import :mod:`optimizers.oracle`, and cvxpy with it, when it is first used."""
    if name == "oracle":
        return importlib.import_module("optimizers.oracle")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
