"""Two tasks in the plane: the weighted sum against the conflict-averse direction, and CAME-Grad stage by stage."""

from collections.abc import Iterable

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike, NDArray

from optimizers import came_grad
from sde_mtl.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, STYLE

Array = NDArray[np.float64]
BLACK = "black"


def joint(gradients: ArrayLike, task_weights: ArrayLike, *, rho: float = 0.5) -> Figure:
    """The two gradients with g_J and u* as unit vectors; shaded, the cone of directions that improve both tasks.

    Args:
        gradients: (2, 2).
        task_weights: (2,).
        rho: of stage 1.

    Example:
        >>> [text.get_text() for text in joint(np.eye(2), [1, 1]).axes[0].texts if text.get_text()]
        ['$g_1$', '$g_2$', '$g_J$', '$u^*$']
    """
    G, w = _tensors(gradients, task_weights)
    r = came_grad(G, w, rho=rho)
    with matplotlib.rc_context(STYLE | {"font.size": 10}):
        figure = Figure(figsize=(4.0, 3.4), layout="constrained")
        axis = figure.subplots()
        unit = [v / np.linalg.norm(v) for v in (*G.numpy(), r.joint.numpy(), r.rectified.numpy())]
        _frame(axis, G.numpy(), unit, 0.25)
        _draw(axis, zip(unit, ("$g_1$", "$g_2$", "$g_J$", "$u^*$"), (BLUE, RED, ORANGE, BLACK), strict=True))
        return figure


def stages(
    gradients: ArrayLike, task_weights: ArrayLike, *, rho: float = 0.5, kappa: float = 1.5, nu: float = 0.2
) -> Figure:
    """CAME-Grad's three stages: trust region and u*, the length κ‖g_J‖, the fused update; the cone of T5 shaded.

    Args:
        gradients: (2, 2).
        task_weights: (2,).
        rho, kappa, nu: of CAME-Grad.

    Example:
        >>> [axis.get_title(loc="left").split()[0] for axis in stages(np.eye(2), [1, 1]).axes]
        ['1', '2', '3']
    """
    G, w = _tensors(gradients, task_weights)
    r = came_grad(G, w, rho=rho, kappa=kappa, nu=nu)
    g, mean, u, enhanced = G.numpy(), r.mean.numpy(), r.rectified.numpy(), r.enhanced.numpy()
    target, update = kappa * r.joint.numpy(), r.update.numpy()
    with matplotlib.rc_context(STYLE | {"font.size": 10}):
        figure = Figure(figsize=(5.4, 8.4), layout="constrained")
        first, second, third = figure.subplots(3, 1)
        tasks = ((g[0], "$g_1$", BLUE), (g[1], "$g_2$", RED))
        radius = rho * float(np.linalg.norm(mean))

        _frame(first, g, [*g, mean, u, mean + radius, mean - radius])
        first.add_patch(Circle((mean[0], mean[1]), radius, fill=False, color=GREY, lw=1.2))
        combined = r.alpha.numpy() @ g
        first.plot(*g.T, color=GREY, lw=1, ls=":")
        first.plot(*combined, "o", color=GREEN, ms=5)
        first.annotate("$g_\\alpha$", combined, (-4, -14), textcoords="offset points", color=GREEN, fontsize=12)
        _draw(first, [*tasks, (mean, "$\\mu$", GREY), (u, "$u^*$", BLACK)])
        first.set_title("1  rectify: u* in the trust region around μ", fontsize=10, loc="left")

        length = float(np.linalg.norm(enhanced))
        reach = [*g, target, enhanced]
        _frame(second, g, reach)
        second.add_patch(Circle((0, 0), length, fill=False, color=GREY, lw=1.2, ls="--"))
        _draw(second, [(target, "$\\kappa g_J$", ORANGE), (enhanced, "$u_{en}$", PURPLE), (u, "", BLACK)])
        second.annotate("$u^*$", u, (10, -12), textcoords="offset points", ha="center", fontsize=12)
        second.set_title("2  inject: u* at the length κ‖$g_J$‖ (dashed)", fontsize=10, loc="left")

        _frame(third, g, reach)
        third.plot(*np.stack([enhanced, target]).T, color=GREY, lw=1, ls=":")
        _draw(third, [(target, "$\\kappa g_J$", ORANGE), (enhanced, "$u_{en}$", PURPLE), (update, "$F$", GREEN)])
        third.set_title("3  fuse: F on the chord, a share ν of the way to κ$g_J$", fontsize=10, loc="left")
        return figure


def _tensors(gradients: ArrayLike, task_weights: ArrayLike) -> tuple[torch.Tensor, torch.Tensor]:
    G = torch.as_tensor(np.asarray(gradients, np.float64))
    if G.shape != (2, 2):
        raise ValueError(f"the plane shows two gradients of two parameters, got shape {tuple(G.shape)}")
    return G, torch.as_tensor(np.asarray(task_weights, np.float64))


def _frame(axis: Axes, g: Array, shown: list[Array], margin: float = 0.18) -> None:
    """Limits around what is shown, and the cone {u : g_iᵀu ≥ 0 ∀i} shaded."""
    ends = np.stack([np.zeros(2), *shown])
    pad = margin * float(np.ptp(ends, axis=0).max())
    low, high = ends.min(0) - pad, ends.max(0) + pad
    x, y = np.meshgrid(np.linspace(low[0], high[0], 300), np.linspace(low[1], high[1], 300))
    harmless = (np.einsum("kd,dab->kab", g, np.stack([x, y])) >= 0).all(0)
    if harmless.any():
        axis.contourf(x, y, harmless, levels=[0.5, 1.5], colors=[GREEN], alpha=0.18)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
    axis.grid(False)


def _draw(axis: Axes, vectors: Iterable[tuple[Array, str, str]]) -> None:
    size = float(np.ptp(axis.get_xlim()) + np.ptp(axis.get_ylim())) / 2
    for vector, label, colour in vectors:
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (float(vector[0]), float(vector[1])), (0, 0), arrowprops=arrow)
        place = vector + 0.05 * size * vector / max(float(np.linalg.norm(vector)), 1e-12)
        axis.text(place[0], place[1], label, color=colour, ha="center", va="center", fontsize=12)
