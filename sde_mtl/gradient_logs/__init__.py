"""Gradient logs of training runs: reading, measuring, judging.

read_log, GradientLog, FrozenSet      the log of a run, checked; GradientLogError says what is wrong with it
analyze, LogAnalysis, Diffusion       conflict, drift deviation and diffusion decay, next to the closed forms
cosines, cosines_with, angle          angles between gradients, from their Gramian
bootstrap, block_length, Interval     intervals, in blocks where steps are serially correlated
empirical_sde, EmpiricalSDE           drift and diffusion of an aggregator, predicted and measured at a checkpoint
EmpiricalNoise, LocalModel            gradient noise and quadratic losses near a checkpoint
distortion, Distortion                what the random projection of the gradients costs
verdicts, Verdict                     the paper's claims against what was measured
tables                                what the commands print of all this (a module)
"""

from sde_mtl.gradient_logs._bootstrap import LEVEL, Interval, block_length, bootstrap
from sde_mtl.gradient_logs._verdicts import Verdict, verdicts
from sde_mtl.gradient_logs.analysis import PAPER_CONFLICT_RATE, LogAnalysis, analyze
from sde_mtl.gradient_logs.angles import angle, cosines, cosines_with
from sde_mtl.gradient_logs.diffusion import Diffusion, diffusion_at
from sde_mtl.gradient_logs.empirical import Descent, Effective, EmpiricalSDE, empirical_sde
from sde_mtl.gradient_logs.local_model import EmpiricalNoise, LocalModel
from sde_mtl.gradient_logs.projection import Distortion, distortion
from sde_mtl.gradient_logs.reader import FrozenSet, GradientLog, GradientLogError, read_log

__all__ = [
    "LEVEL",
    "PAPER_CONFLICT_RATE",
    "Descent",
    "Diffusion",
    "Distortion",
    "Effective",
    "EmpiricalNoise",
    "EmpiricalSDE",
    "FrozenSet",
    "GradientLog",
    "GradientLogError",
    "Interval",
    "LocalModel",
    "LogAnalysis",
    "Verdict",
    "analyze",
    "angle",
    "block_length",
    "bootstrap",
    "cosines",
    "cosines_with",
    "diffusion_at",
    "distortion",
    "empirical_sde",
    "read_log",
    "verdicts",
]
