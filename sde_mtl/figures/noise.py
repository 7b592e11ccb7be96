"""Where training rests over the noise of the gradients (T13, T15, T17)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sde_mtl.figures.style import COLOURS, GREY, canvas


def rests_figure(
    deviations: Sequence[float], rests: Mapping[str, Sequence[float]], measured: Mapping[str, Mapping[float, float]]
) -> Figure:
    """The second task's share of the weights where training rests, over the standard deviation of the noise.

    Args:
        deviations: of a component of either task's gradient.
        rests: label to predicted shares, one a deviation.
        measured: label to the shares that training came to rest at, by deviation.

    Example:
        >>> figure = rests_figure([0.1, 1.0], {"CAME-Grad": [0.57, 0.61]}, {"CAME-Grad": {0.1: 0.57}})
        >>> figure.axes[0].get_xscale()
        'log'
    """
    with canvas(6.2, 3.6) as (figure, (axis,)):
        for height, label in ((0.8, "minimizer of the weighted loss"), (0.5, "minimizer of the mean loss")):
            axis.axhline(height, color=GREY, lw=0.9, ls="--")
            axis.text(deviations[-1], height - 0.008, label, color=GREY, fontsize=8.5, ha="right", va="top")
        for (label, shares), colour in zip(rests.items(), COLOURS, strict=False):
            axis.semilogx(deviations, shares, color=colour, lw=1.6, label=label)
            points = measured.get(label, {})
            axis.plot(list(points), list(points.values()), "o", color=colour, ms=5.5)
        axis.set_ylim(0.45, float(np.max([0.86, *(max(r) + 0.03 for r in rests.values())])))
        axis.set_xlabel("standard deviation of a component of the gradient noise")
        axis.set_ylabel("share of the second task")
        axis.legend(loc="center left", fontsize=9)
        return figure
