"""Gradient logs of training runs: reading, measuring, judging.

read_log, GradientLog, FrozenSet      the log of a run, checked; GradientLogError says what is wrong with it
ParameterGroup                        of a log that tells the shared parameters from the rest
analyze, LogAnalysis, Diffusion       conflict, drift deviation and diffusion decay, next to the closed forms
analyze_scope, ScopeAnalysis          conflict, harm and CAME-Grad's hidden weights on the shared parameters, or on all
frozen_products, FrozenProducts       unbiased products of gradients at frozen parameters; Estimate, with its error
mean_interval, share_interval         intervals for serially correlated steps; ratio_interval
cosines, cosines_with, angle          angles between gradients, from their Gramian
bootstrap, block_length, Interval     intervals by resampling, in blocks if need be
empirical_sde, EmpiricalSDE           drift and diffusion of an aggregator, predicted and measured at a checkpoint
EmpiricalNoise, LocalModel            gradient noise and quadratic losses near a checkpoint
distortion, Distortion                what the random projection of the gradients costs
verdicts, Verdict                     the paper's claims against what was measured
tables                                what the commands print of all this (a module)
"""

from sde_mtl.gradient_logs._bootstrap import LEVEL, Interval, block_length, bootstrap
from sde_mtl.gradient_logs._serial import mean_interval, ratio_interval, share_interval
from sde_mtl.gradient_logs._verdicts import Verdict, verdicts
from sde_mtl.gradient_logs.analysis import PAPER_CONFLICT_RATE, LogAnalysis, analyze
from sde_mtl.gradient_logs.angles import angle, cosines, cosines_with
from sde_mtl.gradient_logs.diffusion import Diffusion, diffusion_at
from sde_mtl.gradient_logs.empirical import Descent, Effective, EmpiricalSDE, empirical_sde
from sde_mtl.gradient_logs.local_model import EmpiricalNoise, LocalModel
from sde_mtl.gradient_logs.products import Estimate, FrozenProducts, frozen_products
from sde_mtl.gradient_logs.projection import Distortion, distortion
from sde_mtl.gradient_logs.reader import FrozenSet, GradientLog, GradientLogError, ParameterGroup, read_log
from sde_mtl.gradient_logs.scopes import ScopeAnalysis, analyze_scope

__all__ = [
    "LEVEL",
    "PAPER_CONFLICT_RATE",
    "Descent",
    "Diffusion",
    "Distortion",
    "Effective",
    "EmpiricalNoise",
    "EmpiricalSDE",
    "Estimate",
    "FrozenProducts",
    "FrozenSet",
    "GradientLog",
    "GradientLogError",
    "Interval",
    "LocalModel",
    "LogAnalysis",
    "ParameterGroup",
    "ScopeAnalysis",
    "Verdict",
    "analyze",
    "analyze_scope",
    "angle",
    "block_length",
    "bootstrap",
    "cosines",
    "cosines_with",
    "diffusion_at",
    "distortion",
    "empirical_sde",
    "frozen_products",
    "mean_interval",
    "ratio_interval",
    "read_log",
    "share_interval",
    "verdicts",
]
