"""Noiseless training on the two quadratic tasks of T6: how it moves, where it comes to rest, how it chatters there.

Many runs go side by side, a row each. :func:`descend` is the loop of all of them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from optimizers import came_grad_coefficients, gramian
from sde_mtl.theory.examples import KAPPA, WEIGHTS, example

Array = NDArray[np.float64]
Center = Literal["mean", "weighted"]
START = (0.6, 1.0)
"""Of the trajectories."""


def descend(
    start: Tensor,
    coefficients: Callable[[Tensor], Tensor],
    steps: int,
    learning_rate: float | Tensor,
    *,
    decay: float | None = None,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
) -> Iterator[Tensor]:
    """Train on :func:`sde_mtl.theory.examples.example` without noise and yield the positions θ_0, θ_1, …, θ_steps.

    Args:
        start: (..., 2) float64, a run each row; it stays as it is.
        coefficients: gradients (..., 2, 2) to the coefficients (..., 2) of their sum, which is the update.
        steps: of training.
        learning_rate: η, or with gradient descent a tensor that broadcasts against θ.
        decay: steps after which a rate that decays like 1/t from a quarter of the steps on has halved; None for a
            constant rate.
        optimizer: makes a torch optimizer, whose rate is then η; None for plain gradient descent.

    Example:
        >>> *_, end = descend(torch.zeros(2).double(), lambda G: torch.ones(2).double(), 200, 0.1)
        >>> torch.allclose(end, example().minimizer([1.0, 1.0]))
        True
    """
    problem, theta = example(), start
    inner = None
    if optimizer is not None:
        theta = start.clone()
        inner = optimizer([theta])
    yield start
    for t in range(steps):
        rate = learning_rate if decay is None else learning_rate / (1 + max(0, t - steps / 4) / decay)
        G = problem.gradients(theta)
        update = torch.einsum("...k,...kd->...d", coefficients(G), G)
        if inner is None:
            theta = theta - rate * update
            yield theta
        else:
            theta.grad = update
            inner.param_groups[0]["lr"] = rate
            inner.step()
            yield theta.clone()


def last(positions: Iterator[Tensor]) -> Tensor:
    """The end of a descent; the positions before it are not kept."""
    return deque(positions, maxlen=1)[0]


def came_grad_rule(
    task_weights: Tensor, *, rho: float = 0.5, nu: float = 0.2, center: Center = "mean"
) -> Callable[[Tensor], Tensor]:
    """Gradients (..., K, d) to CAME-Grad's coefficients (..., K) at the paper's κ.

    Args:
        task_weights: (K,) or (..., K) float64.
        rho, nu, center: of CAME-Grad.
    """
    rule = partial(came_grad_coefficients, rho=rho, kappa=KAPPA, nu=nu, center=center)
    return lambda G: rule(gramian(G), task_weights)


def rest(
    nus: Sequence[float],
    *,
    rho: float = 0.5,
    steps: int = 6000,
    learning_rate: float = 0.05,
    decay: float = 50.0,
    adam: bool = False,
) -> Array:
    """End points for many ν at once, (len(nus) + 1, 2); with steps/4 constant steps, then decaying ones.

    The last row is the control: linear scalarization with equal weights. Aggregates are linear in ν,
    F_ν = (1−ν)F_0 + νF_1, so that one solve serves the whole batch; Adam works entry by entry and so on each row alone.

    Args:
        nus: fusion shares.
        rho, steps, learning_rate: of training.
        decay: steps after which the decaying rate has halved.
        adam: through ``torch.optim.Adam`` rather than ``torch.optim.SGD``.
    """
    w = torch.tensor(WEIGHTS, dtype=torch.float64)
    share = torch.tensor(nus, dtype=torch.float64)[:, None]
    pure = came_grad_rule(w, rho=rho, nu=0.0)

    def coefficients(G: Tensor) -> Tensor:
        fused = (1 - share) * pure(G[:-1]) + share * KAPPA * w
        return torch.cat([fused, w.mean().expand(1, 2)])

    start = torch.full((len(nus) + 1, 2), 2.0, dtype=torch.float64)
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] = torch.optim.Adam if adam else torch.optim.SGD
    return last(descend(start, coefficients, steps, learning_rate, decay=decay, optimizer=optimizer)).numpy()


@dataclass(frozen=True)
class PhaseDiagram:
    """Resting points over (ν, ρ).

    Attributes:
        nus, rhos: the axes.
        position: (len(rhos), len(nus)) along the segment from the mean's minimizer (0) to the weighted one (1).
        off: (len(rhos), len(nus)) distance from that segment, in units of its length.
        control: (len(rhos),) position of linear scalarization with equal weights.
        adam: whether Adam trained.
    """

    nus: Array
    rhos: Array
    position: Array
    off: Array
    control: Array
    adam: bool


def phase_diagram(
    nus: Sequence[float], rhos: Sequence[float], *, steps: int = 6000, adam: bool = False
) -> PhaseDiagram:
    """Where training comes to rest, by simulation (book/resting_points.md).

    Args:
        nus, rhos: fusion shares and radii of CAME-Grad, the axes.
        steps: of training, each.
        adam: whether Adam trains rather than gradient descent.
    """
    problem = example()
    start, end = problem.minimizer([1.0, 1.0]).numpy(), problem.minimizer(WEIGHTS).numpy()
    axis = end - start
    position, off = [], []
    for rho in rhos:
        moved = rest(nus, rho=rho, steps=steps, adam=adam) - start
        along = moved @ axis / (axis @ axis)
        position.append(along)
        off.append(np.linalg.norm(moved - along[:, None] * axis, axis=1) / np.linalg.norm(axis))
    places, away = np.array(position), np.array(off)
    return PhaseDiagram(np.array(nus), np.array(rhos), places[:, :-1], away[:, :-1], places[:, -1], adam)


def chatter(learning_rates: Sequence[float], *, nu: float = 0.2, center: Center = "mean", steps: int = 1500) -> Array:
    """Root mean square distance from the resting point over the last third, at constant steps, started 0.1 from it.

    The resting point is the mean's minimizer; the weighted one with ``center="weighted"`` (T7).

    Args:
        learning_rates: η, a run each.
        nu, center: of CAME-Grad.
        steps: of training.

    Returns:
        (len(learning_rates),) distances.
    """
    point = example().minimizer([0.5, 0.5] if center == "mean" else WEIGHTS)
    eta = torch.tensor(learning_rates, dtype=torch.float64)[:, None]
    rule = came_grad_rule(torch.tensor(WEIGHTS, dtype=torch.float64), nu=nu, center=center)
    squared, begin = torch.zeros(len(eta), dtype=torch.float64), 2 * steps // 3
    for t, theta in enumerate(descend((point + 0.1).expand(len(eta), 2), rule, steps, eta)):
        if t > begin:
            squared += (theta - point).square().sum(-1)
    return (squared / (steps - begin)).sqrt().numpy()


def trajectories(
    weights: ArrayLike,
    nu: float,
    *,
    rho: float = 0.5,
    center: Center = "mean",
    steps: int = 1500,
    learning_rate: float = 0.05,
    decay: float = 25.0,
) -> Array:
    """Whole paths of gradient descent from one start under several task weights, (steps + 1, n, 2).

    The weights are scaled to sum 1, so that they share a learning rate. The step decays like 1/t after a quarter.

    Args:
        weights: (n, 2) task weights, a run each.
        nu, rho, center: of CAME-Grad.
        steps, learning_rate: of training.
        decay: steps after which the decaying rate has halved.

    Example:
        >>> ends = trajectories([[1, 4], [4, 1]], 0.2)[-1]
        >>> bool(abs(ends[0] - ends[1]).max() < 0.02)  # the weights do not matter
        True
    """
    w = torch.as_tensor(np.asarray(weights, np.float64))
    w = w / w.sum(-1, keepdim=True)
    start = torch.tensor(START, dtype=torch.float64).expand(len(w), 2)
    rule = came_grad_rule(w, rho=rho, nu=nu, center=center)
    return torch.stack(list(descend(start, rule, steps, learning_rate, decay=decay))).numpy()
