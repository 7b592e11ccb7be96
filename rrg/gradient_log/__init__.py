"""The gradient log of a training run, as :mod:`sde_mtl.gradient_logs` reads it.

writer      steps and frozen sets on disk
sketch      the projection of gradients
curvature   Hessians along a few directions
"""

from rrg.gradient_log.writer import GradientLogWriter

__all__ = ["GradientLogWriter"]
