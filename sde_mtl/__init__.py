"""Stochastic differential equations of multi-objective training: simulation, theory, gradient logs.

Quadratic, AdditiveNoise            objectives and gradient noise with known laws
Recursion, LinearSDE, simulate      the exact training loop, its SDE, and many paths of either
theory                              one module a statement: derivation, prediction, check
read_log, analyze                   gradient logs of real training runs
"""

from sde_mtl.analysis import LogAnalysis, analyze
from sde_mtl.dynamics import LinearSDE, Recursion
from sde_mtl.gradient_log import GradientLog, GradientLogError, read_log
from sde_mtl.noise import AdditiveNoise
from sde_mtl.problems import Quadratic
from sde_mtl.simulate import DivergedWarning, Moments, simulate

__all__ = [
    "AdditiveNoise",
    "DivergedWarning",
    "GradientLog",
    "GradientLogError",
    "LinearSDE",
    "LogAnalysis",
    "Moments",
    "Quadratic",
    "Recursion",
    "analyze",
    "read_log",
    "simulate",
]
