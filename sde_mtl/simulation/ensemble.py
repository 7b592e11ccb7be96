"""What a simulation returns: moments, chosen paths, first passages and occupation, with their standard errors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ensemble:
    """What is kept of many paths; moments are float64 over the paths that did not diverge.

    Attributes:
        steps: (R,) int64 recorded step numbers; 0 is the start.
        times: (R,) steps times the dynamics' time step.
        horizon: steps simulated.
        time_step: of the dynamics.
        mean: (R, d).
        covariance: (R, d, d), unbiased.
        paths: paths that the moments describe.
        diverged: paths left out because a coordinate exceeded 1e12 or became NaN.
        kept: (k, R, d) chosen paths at the recorded steps, NaN after divergence.
        passage: (N,) int64 first step inside the target, −1 where it was not reached; None without a target. N counts
            every path, diverged ones too.
        occupation: (N,) share of the steps 1 … n inside the region, NaN for diverged paths; None without a region.
    """

    steps: Tensor
    times: Tensor
    horizon: int
    time_step: float
    mean: Tensor
    covariance: Tensor
    paths: int
    diverged: int
    kept: Tensor
    passage: Tensor | None
    occupation: Tensor | None

    def mean_error(self) -> Tensor:
        """Standard error of each mean, (R, d)."""
        return (self.covariance.diagonal(dim1=-2, dim2=-1) / self.paths).sqrt()

    def covariance_error(self) -> Tensor:
        """Standard error of each covariance entry for Gaussian θ, √((C_ij² + C_iiC_jj)/(n−1)), (R, d, d)."""
        variance = self.covariance.diagonal(dim1=-2, dim2=-1)
        product = variance[..., :, None] * variance[..., None, :]
        return ((self.covariance**2 + product) / (self.paths - 1)).sqrt()

    def arrivals(self) -> Tensor:
        """The first passages, (N,); for simulations with a target.

        Raises:
            ValueError: without a target.
        """
        if self.passage is None:
            raise ValueError("simulate without target= records no first passages")
        return self.passage

    def passage_rate(self) -> tuple[float, float]:
        """Arrivals per unit of time spent outside the target, and its standard error; NaN if all paths begin inside.

        The maximum-likelihood rate of exponential passage times when some paths have not arrived (censored).

        Raises:
            ValueError: without a target.
        """
        passage = self.arrivals()
        spent = torch.where(passage >= 0, passage, self.horizon).sum().item() * self.time_step
        if spent == 0:
            return math.nan, math.nan
        count = int((passage > 0).sum())
        return count / spent, max(count, 1) ** 0.5 / spent
