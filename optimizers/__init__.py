"""Multi-task optimizers in torch: CAME-Grad and its rivals, computed exactly from the K×K Gramian.

    came_grad, came_grad_coefficients   CAME-Grad on gradients, or as an aggregator on their Gramian
    linear                              linear scalarization, the baseline
    mgda, pcgrad, cagrad, imtl_g,
    aligned_mtl, nash_mtl               rivals
    ScheduledScalarization,
    WeightSchedule                      the weighted sum with weights that depend on the step, and their file
    solve_dual                          the conflict-averse dual, solved exactly
    CAMEGrad, MultiTaskOptimizer        the training step around any torch optimizer
    ConflictMonitor                     conflicts in any training loop, whatever its optimizer
    JSONLWriter, TensorBoardWriter      what every step saw, on disk
    torchjd                             TorchJD's aggregators by name, and CAME-Grad as one of its own
    testing                             a conformance suite for aggregators, with hypothesis strategies
    oracle                              cvxpy's answer to the same problems
    __version__                         of the installed distribution, sde-mtl

Aggregators share one signature, ``aggregator(gramian, task_weights) -> coefficients``, and accept any
leading batch dimensions.
"""

import importlib
from typing import TYPE_CHECKING, Any

from optimizers.aggregators import (
    CAMEGradResult,
    JacobianAggregator,
    NashSolution,
    ScheduledScalarization,
    WeightSchedule,
    aligned_mtl,
    cagrad,
    came_grad,
    came_grad_coefficients,
    came_grad_stages,
    imtl_g,
    linear,
    mgda,
    nash_mtl,
    pcgrad,
    solve_nash,
)
from optimizers.callbacks import JSONLWriter, TensorBoardWriter
from optimizers.dual import DualSolution, solve_dual
from optimizers.errors import NonFiniteError, SolverError, SolverWarning, report_unsolved
from optimizers.gradients import gramian, task_gradients
from optimizers.monitor import ConflictMonitor, ConflictReading
from optimizers.training import CAMEGrad, GradientMemory, MultiTaskOptimizer, StepDiagnostics

if TYPE_CHECKING:
    from optimizers import oracle

__version__: str

__all__ = [
    "CAMEGrad",
    "CAMEGradResult",
    "ConflictMonitor",
    "ConflictReading",
    "DualSolution",
    "GradientMemory",
    "JSONLWriter",
    "JacobianAggregator",
    "MultiTaskOptimizer",
    "NashSolution",
    "NonFiniteError",
    "ScheduledScalarization",
    "SolverError",
    "SolverWarning",
    "StepDiagnostics",
    "TensorBoardWriter",
    "WeightSchedule",
    "aligned_mtl",
    "cagrad",
    "came_grad",
    "came_grad_coefficients",
    "came_grad_stages",
    "gramian",
    "imtl_g",
    "linear",
    "mgda",
    "nash_mtl",
    "oracle",
    "pcgrad",
    "report_unsolved",
    "solve_dual",
    "solve_nash",
    "task_gradients",
]


def __getattr__(name: str) -> Any:
    """Import :mod:`optimizers.oracle`, and cvxpy with it, and look up the version when they are first used."""
    if name == "oracle":
        return importlib.import_module("optimizers.oracle")
    if name == "__version__":
        return importlib.import_module("optimizers._version").installed_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
