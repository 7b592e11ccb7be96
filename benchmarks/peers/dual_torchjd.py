"""TorchJD's CAGradWeighting: cvxpy and Clarabel on a problem built anew for each Gramian."""

from collections.abc import Callable

from torch import Tensor
from torchjd.aggregation import CAGrad, CAGradWeighting

from peers.dual_problem import Solver

PACKAGES = ("torchjd", "cvxpy", "clarabel")


def solvers(tasks: int, rho: float) -> dict[str, Solver]:
    """As it comes, and without the threshold below which it takes a norm for zero."""
    default, bare = CAGradWeighting(c=rho), CAGradWeighting(c=rho, norm_eps=0.0)
    return {
        "TorchJD": lambda problem: default(problem.tensor).numpy,
        "TorchJD, norm_eps=0": lambda problem: bare(problem.tensor).numpy,
    }


def aggregator(rho: float) -> Callable[[Tensor], Tensor]:
    """(K, d) gradients to (d,) direction."""
    return CAGrad(c=rho)
