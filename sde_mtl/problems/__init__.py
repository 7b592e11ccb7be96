"""Objectives with known laws, and their gradient noise.

Problem, GradientNoise            what a problem and its noise must have; bring your own
Quadratic                         K quadratic losses
CAGradToy, DoubleWell             nonconvex losses in the plane
FiniteSumRegression               K linear regressions on the same data
AdditiveNoise, MinibatchNoise     Gaussian noise of constant covariance, and that of drawn minibatches
"""

from sde_mtl.problems.finite_sum import FiniteSumRegression, MinibatchNoise
from sde_mtl.problems.gradient_noise import AdditiveNoise, GradientNoise
from sde_mtl.problems.landscapes import CAGradToy, DoubleWell
from sde_mtl.problems.quadratic import Problem, Quadratic

__all__ = [
    "AdditiveNoise",
    "CAGradToy",
    "DoubleWell",
    "FiniteSumRegression",
    "GradientNoise",
    "MinibatchNoise",
    "Problem",
    "Quadratic",
]
