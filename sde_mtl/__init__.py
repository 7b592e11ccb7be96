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
"""

from sde_mtl.aggregators import AGGREGATORS, aggregator
from sde_mtl.analysis import LogAnalysis, analyze
from sde_mtl.dynamics import EffectiveSDE, LinearSDE, Recursion
from sde_mtl.euler_maruyama import EulerMaruyama
from sde_mtl.finite_sum import FiniteSumRegression, MinibatchNoise
from sde_mtl.gradient_log import GradientLog, GradientLogError, read_log
from sde_mtl.landscapes import CAGradToy, DoubleWell
from sde_mtl.noise import AdditiveNoise
from sde_mtl.problems import Quadratic
from sde_mtl.simulate import DivergedWarning, Ensemble, simulate
from sde_mtl.simulation_state import CheckpointError

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
