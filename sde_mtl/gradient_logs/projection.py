"""How well the random projection of a gradient log keeps inner products."""

from dataclasses import dataclass

import numpy as np

from sde_mtl.gradient_logs.reader import GradientLog


@dataclass(frozen=True)
class Distortion:
    """Error of the projected inner products, over every logged pair of gradients of one step.

    Attributes:
        measured: root mean square of (⟨Sx, Sy⟩ − ⟨x, y⟩)/(‖x‖‖y‖).
        bound: root mean square of its standard deviation's bound √((1 + cos²)/m).
        worst: largest error.
        guarantee: what no fixed pair exceeds with probability 95 % (Chebyshev at the largest bound).
        pairs: how many.
    """

    measured: float
    bound: float
    worst: float
    guarantee: float
    pairs: int


def distortion(log: GradientLog) -> Distortion:
    """Measure the projection of a log against its exact Gramians, and state the bound.

    Args:
        log: with gradients that are not all 0.
    """
    exact, p = log.gramian, log.projected.astype(np.float64)
    norms = np.sqrt(np.einsum("nii->ni", exact))
    scale = norms[:, :, None] * norms[:, None, :]
    rows, columns = np.triu_indices(len(log.tasks))
    used = scale[:, rows, columns] > 0
    scale = np.where(scale > 0, scale, 1)
    error = ((np.einsum("nim,njm->nij", p, p) - exact) / scale)[:, rows, columns][used]
    cosine = (exact / scale)[:, rows, columns][used]
    bound = np.sqrt((1 + cosine**2) / p.shape[-1])
    return Distortion(
        float(np.sqrt((error**2).mean())),
        float(np.sqrt((bound**2).mean())),
        float(np.abs(error).max()),
        float(bound.max() / np.sqrt(0.05)),
        error.size,
    )
