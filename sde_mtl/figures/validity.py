"""Pictures of geometric validity (T5): the trust region in the plane, where it fails, and what fusion does."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike, NDArray

from optimizers import came_grad
from sde_mtl.figures.style import BLUE, COLOURS, GREEN, GREY, RED, STYLE
from sde_mtl.theory.t04_effective_diffusion import pair
from sde_mtl.theory.t05_validity import is_valid

Array = NDArray[np.float64]


def geometry(pairs: Mapping[str, ArrayLike], rho: float = 0.5) -> Figure:
    """Two gradients, the trust region around their mean and u*; shaded, the directions that improve both tasks.

    Args:
        pairs: title to (2, 2) gradients.
        rho: of stage 1.

    Example:
        >>> len(geometry({"valid": [[1.0, 0.0], [-0.5, 0.8]], "not": [[1.0, 0.2], [-3.0, 0.2]]}).axes)
        2
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.0), layout="constrained")
        axes = figure.subplots(1, len(pairs), squeeze=False)[0]
        for axis, (title, gradients) in zip(axes, pairs.items(), strict=True):
            _plane(axis, torch.as_tensor(np.asarray(gradients, np.float64)), rho)
            axis.set_title(title, fontsize=10)
        return figure


def _plane(axis: Axes, G: torch.Tensor, rho: float) -> None:
    r = came_grad(G, rho=rho)
    mean, u = r.mean.numpy(), r.rectified.numpy()
    radius = rho * float(np.linalg.norm(mean))
    reach = 1.15 * max(float(G.norm(dim=1).max()), float(np.linalg.norm(mean)) + radius)
    x, y = np.meshgrid(*[np.linspace(-reach, reach, 300)] * 2)
    products = np.einsum("kd,dab->kab", G.numpy(), np.stack([x, y]))
    axis.contourf(x, y, (products >= 0).all(0), levels=[0.5, 1.5], colors=[GREEN], alpha=0.18)
    axis.add_patch(Circle((mean[0], mean[1]), radius, fill=False, color=GREY, lw=1.2))
    labels = ("$g_1$", "$g_2$", "$\\mu$", "$u^*$")
    for vector, colour, label in zip((*G.numpy(), mean, u), (BLUE, RED, GREY, "black"), labels, strict=True):
        axis.annotate("", vector, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8, "shrinkA": 0,
                                                      "shrinkB": 0})  # fmt: skip
        place = vector + 0.09 * reach * vector / max(float(np.linalg.norm(vector)), 1e-12)
        axis.text(place[0], place[1], label, color=colour, ha="center", va="center", fontsize=11)
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axis.grid(False)


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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.4), layout="constrained")
        axis = figure.subplots()
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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        axis = figure.subplots()
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
