"""Pictures of geometric validity (T5, T9): where stage 1 harms a task, and what fusion does."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from optimizers import came_grad
from sde_mtl.figures.style import COLOURS, GREEN, GREY, canvas
from sde_mtl.theory import pair
from sde_mtl.theory.t05_validity import is_valid


def regions(rhos: Sequence[float], *, points: int = 241) -> Figure:
    """Where stage 1 harms a task, over angle and norm ratio, one boundary each trust region (T5, K = 2).

    Args:
        rhos: trust regions.
        points: along each axis.

    Example:
        >>> regions([0.3, 0.6], points=21).axes[0].get_ylabel()
        'norm ratio b/a'
    """
    angles, ratios = np.linspace(0.01, np.pi - 0.01, points), np.geomspace(0.05, 20, points)
    G = torch.stack([torch.stack([pair(r, a) for a in angles]) for r in ratios])
    M = (G @ G.mT).numpy()
    with canvas(5.4, 3.4) as (figure, (axis,)):
        for rho, colour in zip(rhos, COLOURS, strict=False):
            axis.contour(np.degrees(angles), ratios, is_valid(M, rho).astype(float), [0.5], colors=[colour],
                         linewidths=1.6)  # fmt: skip
            axis.plot([], [], color=colour, lw=1.6, label=f"ρ = {rho:g}")
        axis.set_yscale("log")
        axis.set_xlim(0, 180)
        axis.set_xlabel("angle φ between the gradients [°]")
        axis.set_ylabel("norm ratio b/a")
        axis.text(25, 1, "$u^*$ improves both tasks", va="center", fontsize=10)
        axis.text(178, 15, "harms task 1", ha="right", va="top", fontsize=10)
        axis.text(178, 0.07, "harms task 2", ha="right", va="bottom", fontsize=10)
        axis.legend(fontsize=9.5, loc="lower left")
        return figure


def fusion(gradients: ArrayLike, task_weights: ArrayLike, *, rho: float = 0.5, kappa: float = 1.0) -> Figure:
    """Improvement g_iᵀF of each task against the fusion share ν, and the largest ν that harms nobody (T9).

    Args:
        gradients: (K, d).
        task_weights: (K,).
        rho, kappa: of CAME-Grad.

    Example:
        >>> fusion([[-2.0, -2.0], [-1.0, 2.0]], [0.8, 0.2], rho=0.25).axes[0].get_xlabel()
        'fusion share ν'
    """
    G = torch.as_tensor(np.asarray(gradients, np.float64))
    w = torch.as_tensor(np.asarray(task_weights, np.float64))
    nus = np.linspace(0, 1, 201)
    products = np.stack([(G @ came_grad(G, w, rho=rho, kappa=kappa, nu=float(n)).update).numpy() for n in nus])
    harmless = nus[(products >= 0).all(1)]
    with canvas(5.4, 3.2) as (figure, (axis,)):
        for task, colour in zip(range(len(G)), COLOURS, strict=False):
            axis.plot(nus, products[:, task], color=colour, lw=1.6, label=f"task {task + 1}")
        axis.axhline(0, color=GREY, lw=0.8)
        if len(harmless):
            axis.axvspan(float(harmless.min()), float(harmless.max()), color=GREEN, alpha=0.15, lw=0,
                         label="harms nobody")  # fmt: skip
        axis.set_xlabel("fusion share ν")
        axis.set_ylabel(r"improvement $g_i^\top F$")
        axis.legend(fontsize=9.5)
        return figure
