"""Curves of drift deviation (T2) over the angle between two gradients, beside random gradients in many dimensions."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from optimizers import came_grad
from sde_mtl.figures.style import COLOURS, GREY, canvas
from sde_mtl.theory import pair
from sde_mtl.theory.t02_drift_deviation import predict

Array = NDArray[np.float64]


def measured(
    ratio: float, angles: Array, task_weights: Sequence[float], *, rho: float = 0.5, dimension: int = 50, seed: int = 0
) -> tuple[Array, Array, Array]:
    """∠(g_J, u*) [rad] and the worst task's cosine with g_J and with u*, from gradients in a random plane, (n,) each.

    Args:
        ratio: b/a.
        angles: (n,) φ in radians.
        task_weights: (2,).
        rho: of stage 1.
        dimension: d of the gradients.
        seed: of the planes.

    Example:
        >>> angle, _, worst = measured(1.0, np.deg2rad([120.0]), (1.0, 1.0))
        >>> round(float(worst[0]), 6)
        0.5
    """
    rng = np.random.default_rng(seed)
    plane = torch.stack([pair(ratio, float(phi)) for phi in angles])
    frames = np.linalg.qr(rng.normal(size=(len(angles), dimension, 2)))[0]
    G = plane @ torch.from_numpy(frames).mT
    r = came_grad(G, task_weights, rho=rho)
    cosine = torch.nn.functional.cosine_similarity
    between = cosine(r.joint, r.rectified, dim=-1).clamp(-1, 1).arccos()
    worst = [cosine(G, v[:, None], dim=-1).amin(-1) for v in (r.joint, r.rectified)]
    return between.numpy(), worst[0].numpy(), worst[1].numpy()


def curves(
    ratios: Sequence[float], task_weights: Sequence[float], *, rho: float = 0.5, dimension: int = 50, seed: int = 0
) -> Figure:
    """Closed forms of T2 over φ, one colour each norm ratio, with dots from :func:`measured`.

    Args:
        ratios: of b/a.
        task_weights: (2,).
        rho: of stage 1.
        dimension, seed: of the measured gradients.

    Example:
        >>> len(curves([1.0], (1.0, 4.0)).axes)
        2
    """
    fine, coarse = np.linspace(0.02, np.pi - 0.02, 300), np.linspace(0.15, np.pi - 0.15, 12)
    with canvas(6.6, 3.4, columns=2, font_size=10) as (figure, (left, right)):
        for ratio, colour in zip(ratios, COLOURS, strict=False):
            line = predict(ratio, fine, task_weights, rho)
            dots = measured(ratio, coarse, task_weights, rho=rho, dimension=dimension, seed=seed)
            left.plot(np.degrees(fine), np.degrees(line.angle), color=colour, label=f"b/a = {ratio:g}")
            left.plot(np.degrees(coarse), np.degrees(dots[0]), "o", ms=4, color=colour)
            for values, points, style in ((line.worst_joint, dots[1], "-"), (line.worst_rectified, dots[2], "--")):
                right.plot(np.degrees(fine), values, style, color=colour)
                right.plot(np.degrees(coarse), points, "o", ms=4, color=colour)
        right.axhline(0, color=GREY, lw=1)
        left.set_ylabel("angle between $g_J$ and $u^*$ [°]")
        right.set_ylabel("worst task's cosine")
        for axis in (left, right):
            axis.set_xlabel("angle φ [°]")
            axis.set_xticks([0, 60, 120, 180])
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(ratios), fontsize=10)
        return figure
