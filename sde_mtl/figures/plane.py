"""Two gradients in the plane: weighted sum and conflict-averse direction, trust regions, CAME-Grad's three stages."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike, NDArray

from optimizers import came_grad
from sde_mtl.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, canvas

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
    with canvas(4.0, 3.4, font_size=10) as (figure, (axis,)):
        unit = [v / np.linalg.norm(v) for v in (*G.numpy(), r.joint.numpy(), r.rectified.numpy())]
        _frame(axis, G.numpy(), unit, margin=0.25)
        _draw(axis, zip(unit, ("$g_1$", "$g_2$", "$g_J$", "$u^*$"), (BLUE, RED, ORANGE, BLACK), strict=True))
        return figure


def trust_regions(pairs: Mapping[str, ArrayLike], rho: float = 0.5) -> Figure:
    """The two gradients, the trust region around their mean and u*, a panel each pair; shaded, the cone of T5.

    Args:
        pairs: title to (2, 2) gradients.
        rho: of stage 1.

    Example:
        >>> len(trust_regions({"valid": [[1.0, 0.0], [-0.5, 0.8]], "not": [[1.0, 0.2], [-3.0, 0.2]]}).axes)
        2
    """
    with canvas(5.6, 3.0, columns=len(pairs)) as (figure, axes):
        for axis, (title, gradients) in zip(axes, pairs.items(), strict=True):
            G, w = _tensors(gradients, [1.0, 1.0])
            r = came_grad(G, w, rho=rho)
            g, mean = G.numpy(), r.mean.numpy()
            radius = rho * float(np.linalg.norm(mean))
            reach = 1.25 * max(*np.linalg.norm(g, axis=1), float(np.linalg.norm(mean)) + radius)
            _frame(axis, g, [np.full(2, -reach), np.full(2, reach)], margin=0)
            _circle(axis, mean, radius)
            _draw(axis, [*_tasks(g), (mean, "$\\mu$", GREY), (r.rectified.numpy(), "$u^*$", BLACK)])
            axis.set_title(title, fontsize=10)
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
    with canvas(5.4, 8.4, rows=3, font_size=10) as (figure, (first, second, third)):
        radius = rho * float(np.linalg.norm(mean))

        _frame(first, g, [*g, mean, u, mean + radius, mean - radius])
        _circle(first, mean, radius)
        combined = r.alpha.numpy() @ g
        first.plot(*g.T, color=GREY, lw=1, ls=":")
        first.plot(*combined, "o", color=GREEN, ms=5)
        _beside(first, "$g_\\alpha$", combined, (-4, -14), GREEN)
        _draw(first, [*_tasks(g), (mean, "$\\mu$", GREY), (u, "$u^*$", BLACK)])
        first.set_title("1  rectify: u* in the trust region around μ", fontsize=10, loc="left")

        length = float(np.linalg.norm(enhanced))
        reach = [*g, target, enhanced]
        _frame(second, g, reach)
        _circle(second, np.zeros(2), length, "--")
        _draw(second, [(target, "$\\kappa g_J$", ORANGE), (enhanced, "$u_{en}$", PURPLE), (u, "", BLACK)])
        _beside(second, "$u^*$", u, (10, -12), BLACK, ha="center")
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


def _frame(axis: Axes, g: Array, shown: Sequence[Array], *, margin: float = 0.18) -> None:
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


def _circle(axis: Axes, centre: Array, radius: float, style: str = "-") -> None:
    axis.add_patch(Circle((centre[0], centre[1]), radius, fill=False, color=GREY, lw=1.2, ls=style))


def _tasks(g: Array) -> list[tuple[Array, str, str]]:
    return [(g[0], "$g_1$", BLUE), (g[1], "$g_2$", RED)]


def _draw(axis: Axes, vectors: Iterable[tuple[Array, str, str]]) -> None:
    """Arrows from the origin, each with its label and colour."""
    size = float(np.ptp(axis.get_xlim()) + np.ptp(axis.get_ylim())) / 2
    for vector, label, colour in vectors:
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (float(vector[0]), float(vector[1])), (0, 0), arrowprops=arrow)
        place = vector + 0.05 * size * vector / max(float(np.linalg.norm(vector)), 1e-12)
        axis.text(place[0], place[1], label, color=colour, ha="center", va="center", fontsize=12)


def _beside(axis: Axes, label: str, point: Array, offset: tuple[float, float], colour: str, ha: str = "left") -> None:
    """A label as many points away from a point of the plane."""
    place = (float(point[0]), float(point[1]))
    axis.annotate(label, place, offset, textcoords="offset points", color=colour, ha=ha, fontsize=12)
