"""Stochastic differential equations of multi-objective training: simulation, theory, gradient logs.

Quadratic, CAGradToy, DoubleWell,   objectives with known laws
FiniteSumRegression
AdditiveNoise, MinibatchNoise       gradient noise
aggregator                          linear, equal, came-grad and its rivals
Recursion, EffectiveSDE, LinearSDE  the exact training loop and its SDEs
EulerMaruyama                       any SDE of your own
simulate                            many paths of either: moments, chosen paths, first passages, occupation
theory                              one module a statement: derivation, prediction, check
read_log, analyze                   gradient logs of real training runs
__version__                         of the installed distribution, sde-mtl
"""

import optimizers
from optimizers.aggregators.by_name import AGGREGATORS, aggregator
from sde_mtl.gradient_logs.analysis import LogAnalysis, analyze
from sde_mtl.gradient_logs.reader import GradientLog, GradientLogError, read_log
from sde_mtl.problems import AdditiveNoise, CAGradToy, DoubleWell, FiniteSumRegression, MinibatchNoise, Quadratic
from sde_mtl.simulation import (
    CheckpointError,
    DivergedWarning,
    EffectiveSDE,
    Ensemble,
    EulerMaruyama,
    LinearSDE,
    Recursion,
    simulate,
)

__version__: str

__all__ = [
    "AGGREGATORS",
    "AdditiveNoise",
    "CAGradToy",
    "CheckpointError",
    "DivergedWarning",
    "DoubleWell",
    "EffectiveSDE",
    "Ensemble",
    "EulerMaruyama",
    "FiniteSumRegression",
    "GradientLog",
    "GradientLogError",
    "LinearSDE",
    "LogAnalysis",
    "MinibatchNoise",
    "Quadratic",
    "Recursion",
    "aggregator",
    "analyze",
    "read_log",
    "simulate",
]


def __getattr__(name: str) -> str:
    """The version, looked up when it is asked for."""
    if name == "__version__":
        return optimizers.__version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
