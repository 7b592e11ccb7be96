"""Pictures of training as a stochastic process: paths with their predicted band, moments, stationary clouds (T3)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike, NDArray

from sde_mtl.figures.style import BLUE, COLOURS, GREY, canvas
from sde_mtl.simulation import Ensemble
from sde_mtl.theory.t03_diffusion_decay import OrnsteinUhlenbeck

Array = NDArray[np.float64]


def band(simulated: Ensemble, law: OrnsteinUhlenbeck, start: ArrayLike, *, component: int = 0) -> Figure:
    """Kept paths of one parameter over time, with mean ± 2 standard deviations of the Ornstein–Uhlenbeck law.

    Args:
        simulated: with kept paths.
        law: of the same problem.
        start: (d,) of the paths.
        component: which parameter.
    """
    times = simulated.times.numpy()
    mean = np.array([law.mean(t, start)[component] for t in times])
    deviation = np.sqrt([law.covariance(t)[component, component] for t in times])
    with canvas(5.6, 3.2, font_size=10) as (figure, (axis,)):
        for number, path in enumerate(simulated.kept.numpy()):
            axis.plot(times, path[:, component], color=GREY, lw=0.8, alpha=0.7,
                      label="training loop" if number == 0 else None)  # fmt: skip
        axis.plot(times, mean, color=BLUE, lw=2, label="mean of the SDE")
        axis.fill_between(times, mean - 2 * deviation, mean + 2 * deviation, color=BLUE, alpha=0.18, lw=0,
                          label="± 2 standard deviations of the SDE")  # fmt: skip
        axis.set_xlabel("time $t = \\eta n$")
        axis.set_ylabel(f"$\\theta_{component + 1}$")
        axis.legend(fontsize=10)
        return figure


def clouds(simulated: Mapping[str, Ensemble], laws: Mapping[str, OrnsteinUhlenbeck]) -> Figure:
    """Last positions of the kept paths in the plane, with the predicted 95 % ellipse of the loop; a panel each.

    Args:
        simulated: title to paths of two parameters.
        laws: of the same titles.
    """
    with canvas(6.6, 2.8, columns=len(simulated), sharex=True, sharey=True, font_size=10) as (figure, axes):
        for axis, (title, ensemble), colour in zip(axes, simulated.items(), COLOURS, strict=False):
            x, y = ensemble.kept[:, -1].numpy().T
            axis.plot(x, y, ".", ms=2.5, color=colour, alpha=0.6)
            law = laws[title]
            axis.add_patch(_ellipse(law.minimizer, law.discrete_stationary()))
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("$\\theta_1$")
            axis.set_aspect("equal")
        axes[0].set_ylabel("$\\theta_2$")
        return figure


def ratio(correlations: ArrayLike, predicted: ArrayLike, measured: ArrayLike, error: ArrayLike) -> Figure:
    """Diffusion ratio against the correlation of the tasks' noise: closed form, and simulation ± 2 standard errors.

    Args:
        correlations, predicted, measured, error: (n,).

    Example:
        >>> ratio([0.0], [1.0], [1.01], [0.02]).axes[0].get_xlabel()
        'correlation of the noise'
    """
    r = np.asarray(correlations)
    with canvas(5.2, 3.0, font_size=10) as (figure, (axis,)):
        axis.plot(r, np.asarray(predicted), color=BLUE, lw=1.6, label="closed form")
        axis.errorbar(r, np.asarray(measured), 2 * np.asarray(error), fmt="o", color=COLOURS[1], ms=4, capsize=3,
                      label="simulated ± 2 SE")  # fmt: skip
        axis.axhline(1, color=GREY, lw=0.8)
        axis.set_xlabel("correlation of the noise")
        axis.set_ylabel("diffusion over that of\nindependent noise")
        axis.legend(fontsize=10)
        return figure


def moments(simulated: Ensemble, law: OrnsteinUhlenbeck, start: Sequence[float], learning_rate: float) -> Figure:
    """Mean and variances of the training loop against the SDE's and the recursion's closed forms.

    Args:
        simulated: of linear scalarization, at several steps.
        law: of the same problem.
        start: (d,) of the paths.
        learning_rate: η; the SDE's time at step n is ηn.
    """
    with canvas(6.4, 2.8, columns=2) as (figure, (left, right)):
        steps = range(int(simulated.steps[-1]) + 1)
        for axis, name, measured, error, exact, sde in (
            (left, "mean", simulated.mean, simulated.mean_error(),
             [law.discrete_mean(s, start) for s in steps], [law.mean(s * learning_rate, start) for s in steps]),
            (right, "variance", simulated.covariance.diagonal(dim1=1, dim2=2),
             simulated.covariance_error().diagonal(dim1=1, dim2=2),
             [np.diag(law.discrete_covariance(s)) for s in steps],
             [np.diag(law.covariance(s * learning_rate)) for s in steps]),
        ):  # fmt: skip
            for component, colour in zip(range(measured.shape[1]), COLOURS, strict=False):
                axis.errorbar(simulated.steps, measured[:, component], 5 * error[:, component], fmt="o", ms=3,
                              capsize=2, color=colour,
                              label=f"$\\theta_{{{component}}}$, simulated ± 5 SE")  # fmt: skip
                axis.plot(steps, np.array(exact)[:, component], color=colour, lw=1.2)
                axis.plot(steps, np.array(sde)[:, component], color=colour, lw=1, ls=":")
            axis.set_xlabel("step")
            axis.set_ylabel(name)
        left.plot([], [], color=GREY, lw=1.2, label="recursion, closed form")
        left.plot([], [], color=GREY, lw=1, ls=":", label="SDE, closed form")
        left.legend(fontsize=7)
        return figure


def _ellipse(centre: Array, covariance: Array, share: float = 0.95) -> Ellipse:
    values, vectors = np.linalg.eigh(covariance)
    axes = 2 * np.sqrt(-2 * np.log(1 - share) * values)
    tilt = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    place = (float(centre[0]), float(centre[1]))
    return Ellipse(place, axes[1], axes[0], angle=tilt, fill=False, color="black", lw=1.4)
