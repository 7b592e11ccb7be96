"""Pictures of the conflict-averse dual: f(α) for two tasks on every branch, and the direction over ρ."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from optimizers import came_grad
from sde_mtl.figures.style import COLOURS, GREY, canvas


def objective(pairs: Mapping[str, ArrayLike], rho: float = 0.5) -> Figure:
    """f(α, 1 − α) of pairs of gradients with the minimum that the closed form gives; above 0 stage 1 is valid.

    Args:
        pairs: label to (2, d) gradients.
        rho: of stage 1.

    Example:
        >>> figure = objective({"orthogonal": np.eye(2)})
        >>> figure.axes[0].lines[1].get_xydata().tolist()
        [[0.5, 0.75]]
    """
    weights = np.linspace(0, 1, 401)
    with canvas(5.4, 3.2, font_size=10) as (figure, (axis,)):
        for (label, gradients), colour in zip(pairs.items(), COLOURS, strict=False):
            G = np.asarray(gradients, np.float64)
            mean = G.mean(0)
            combined = weights[:, None] * G[0] + (1 - weights[:, None]) * G[1]
            f = combined @ mean + rho * np.linalg.norm(mean) * np.linalg.norm(combined, axis=1)
            r = came_grad(torch.from_numpy(G), rho=rho)
            axis.plot(weights, f, color=colour, lw=1.6, label=label)
            axis.plot(r.alpha[0].item(), r.dual_value.item(), "o", color=colour, ms=7)
        axis.axhline(0, color=GREY, lw=1)
        axis.set_xlabel("weight α of task 1")
        axis.set_ylabel("dual objective $f(\\alpha)$")
        axis.legend(fontsize=10)
        return figure


def over_rho(pairs: Mapping[str, ArrayLike], rhos: Sequence[float]) -> Figure:
    """Angle between u* and μ over the trust region ρ; flat where the dual weighs both tasks (T4).

    Args:
        pairs: label to (2, d) gradients.
        rhos: in [0, 1).

    Example:
        >>> over_rho({"a": [[1.0, 0.0], [-0.6, 0.4]]}, [0.1, 0.5]).axes[0].get_ylabel()
        'angle between $u^*$ and $\\\\mu$ [°]'
    """
    with canvas(5.4, 3.0, font_size=10) as (figure, (axis,)):
        for (label, gradients), colour in zip(pairs.items(), COLOURS, strict=False):
            G = torch.as_tensor(np.asarray(gradients, np.float64))
            results = [came_grad(G, rho=float(rho)) for rho in rhos]
            cosine = [torch.cosine_similarity(r.rectified, r.mean, dim=0).item() for r in results]
            axis.plot(rhos, np.degrees(np.arccos(np.clip(cosine, -1, 1))), color=colour, lw=1.8, label=label)
        limit = np.degrees(np.arcsin(np.asarray(rhos)))
        axis.plot(rhos, limit, color=GREY, lw=1, ls="--", label="arcsin ρ, the most it can turn")
        axis.set_xlabel("trust region ρ")
        axis.set_ylabel("angle between $u^*$ and $\\mu$ [°]")
        axis.legend(fontsize=10)
        return figure
