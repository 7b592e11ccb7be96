r"""Unbiased products of gradients at frozen parameters, from different micro-batches, with jackknife errors.

Two gradients of the same micro-batch share its noise, and their product is off by tr Σ_ij. Products of different
micro-batches are not: with g_i^a the gradient of task i on micro-batch a,

.. math:: U_{ij} = \frac{1}{n(n-1)}\sum_{a≠b}⟨g_i^a, g_j^b⟩, \qquad
          E\,U_{ij} = g_i^⊤g_j, \qquad T_{ij} = \overline{⟨g_i, g_j⟩} - U_{ij}, \qquad E\,T_{ij} = \mathrm{tr}\,Σ_{ij}.

The values are exact where the log holds the Gramian of the mean gradients. Their errors are the delete-one jackknife's
of the projected gradients, compared with Student's t of n − 1 degrees of freedom. Where the mean gradients are 0 the
jackknife overstates the error, so that its tests are cautious there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from optimizers import came_grad_coefficients
from optimizers.aggregators import CAMEGradOptions
from sde_mtl.gradient_logs._bootstrap import LEVEL, Interval
from sde_mtl.gradient_logs.reader import FrozenSet

Array = NDArray[np.float64]
NOTHING = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A value with its jackknife error.

    Attributes:
        value: unbiased, or nearly so.
        error: standard error.
        count: micro-batches that it is of.

    Example:
        >>> Estimate(-3.0, 1.0, 16).z, Estimate(-3.0, 1.0, 16).interval.high < 0
        (-3.0, True)
    """

    value: float
    error: float
    count: int

    @property
    def z(self) -> float:
        """The value in standard errors."""
        return self.value / self.error if self.error > 0 else NOTHING

    @property
    def interval(self) -> Interval:
        """95 %, by Student's t."""
        width = self.error * float(stats.t.ppf((1 + LEVEL) / 2, self.count - 1))
        return Interval(self.value, self.value - width, self.value + width)


@dataclass(frozen=True)
class FrozenProducts:
    """What the micro-batches of one frozen set say of the expected gradients of K tasks.

    Attributes:
        step, micro_batches: which set.
        products: K×K, g_iᵀg_j of the expected gradients.
        with_joint: K, g_iᵀg_J: negative where linear scalarization harms task i in expectation.
        cosines_with_joint: K, cos(g_i, g_J); NaN where a squared norm is not found positive.
        signal_to_noise: K, ‖g_i‖²/tr Σ_ii of one micro-batch, the inverse of :attr:`noise_scale`.
        joint_signal_to_noise: SNR_J, the same of g_J.
        scalarization_cosine: cos(E F, Σ c̄_i g_i), F and c CAME-Grad's on one micro-batch: 1 where CAME-Grad is linear
            scalarization with the weights c̄ (T13). Numerator and denominators come from different micro-batches, and
            c̄ from all the others, so that it may exceed 1 by chance; NaN where a squared length is not found positive.
        diffusion: R = tr Cov F / κ² tr Σ_LS.
        diffusion_bound: 1 + SNR_J, which R does not exceed (T14).
        coefficients: K, c̄ = E c, over its sum.
        chance_first, chance_pairs: share of micro-batches whose gradients *less their mean* conflict, the first task
            with any other, and of all pairs: the conflict rates of this noise without any signal.
        by_group: name of a group → K, its part of g_iᵀg_J; where the log tells groups apart, and the set is complete.
    """

    step: int
    micro_batches: int
    products: list[list[Estimate]]
    with_joint: list[Estimate]
    cosines_with_joint: list[Estimate]
    signal_to_noise: list[Estimate]
    joint_signal_to_noise: Estimate
    scalarization_cosine: Estimate
    diffusion: Estimate
    diffusion_bound: Estimate
    coefficients: list[Estimate]
    chance_first: float
    chance_pairs: float
    by_group: dict[str, list[Estimate]] = field(default_factory=dict)

    @property
    def noise_scale(self) -> list[Interval]:
        """K, tr Σ_ii/‖g_i‖² in micro-batches: how many average the noise down to the signal.

        Times the studies of a micro-batch it is the simple noise scale of McCandlish et al. 2018 (arXiv:1812.06162).
        """
        return [inverse(ratio.interval) for ratio in self.signal_to_noise]

    @property
    def joint_noise_scale(self) -> Interval:
        """The same of g_J."""
        return inverse(self.joint_signal_to_noise.interval)


def inverse(interval: Interval) -> Interval:
    """Interval of 1/x for x ≥ 0; infinite where x reaches 0.

    Example:
        >>> inverse(Interval(0.5, -0.1, 2.0))
        Interval(value=2.0, low=0.5, high=inf)
    """
    value, high, low = (1 / x if x > 0 else float("inf") for x in (interval.value, interval.low, interval.high))
    return Interval(value, low, high)


def frozen_products(
    frozen: FrozenSet,
    w: Array,
    *,
    options: Mapping[str, Any] | None = None,
    groups: tuple[str, ...] = (),
) -> FrozenProducts:
    """Measure one frozen set.

    Args:
        frozen: n ≥ 4 micro-batches.
        w: (K,) task weights.
        options: of CAME-Grad, as :func:`optimizers.came_grad` takes them.
        groups: names of the G groups of parameters.

    Raises:
        ValueError: for fewer than 4 micro-batches.

    Example:
        Two tasks with orthogonal unit gradients in noise of total variance 4, shared half and half:

        >>> rng = np.random.default_rng(0)
        >>> own, both = rng.normal(size=(60, 2, 100)) / 10, rng.normal(size=(60, 1, 100)) / 10
        >>> g = np.eye(2, 100) + np.sqrt(2) * (own + both)
        >>> found = frozen_products(FrozenSet(0, np.ones((60, 2)), g @ g.transpose(0, 2, 1), g, None), np.ones(2))
        >>> product = found.products[0][1].interval
        >>> product.low < 0 < product.high < 0.5  # the mean of g_1ᵀg_2 on the same micro-batch is 2
        True
        >>> scale = found.noise_scale[0]
        >>> scale.low < 4 < scale.high
        True
    """
    p = frozen.projected.astype(np.float64)
    n, tasks = p.shape[:2]
    if n < 4:
        raise ValueError(f"unbiased products need 4 micro-batches, the set at step {frozen.step} has {n}")
    options = dict(options or {})
    P = np.einsum("aim,bjm->abij", p, p)
    U, of_each = _products(P)
    if frozen.mean_gramian is not None:
        exact = (n**2 * frozen.mean_gramian - frozen.gramian.sum(0)) / (n * (n - 1))
        U, of_each = exact, of_each + (exact - U)
    T = frozen.gramian.mean(0) - U
    without = (frozen.gramian.sum(0) - frozen.gramian) / (n - 1) - of_each

    def jackknifed(function: Callable[[Array, Array], Array]) -> list[Estimate]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return _estimates(function(U, T), function(of_each, without))

    def norms(u: Array) -> Array:
        return np.sqrt(np.einsum("...ii->...i", u))

    flat = jackknifed(lambda u, _: u.reshape(*u.shape[:-2], -1))
    c = came_grad_coefficients(torch.from_numpy(frozen.gramian), torch.from_numpy(w), **options).numpy()
    kappa = CAMEGradOptions(**options).kappa
    came = _came_grad(P, c, w)
    pushed = np.array([came(np.delete(np.arange(n), a)) for a in range(n)])
    cosine, ratio, bound = _estimates(came(np.arange(n)), pushed)
    first, pairs = _chance(p)
    return FrozenProducts(
        step=frozen.step,
        micro_batches=n,
        products=[flat[tasks * i : tasks * (i + 1)] for i in range(tasks)],
        with_joint=jackknifed(lambda u, _: u @ w),
        cosines_with_joint=jackknifed(lambda u, _: u @ w / norms(u) / np.sqrt((u @ w) @ w)[..., None]),
        signal_to_noise=jackknifed(lambda u, t: np.einsum("...ii->...i", u) / np.einsum("...ii->...i", t)),
        joint_signal_to_noise=jackknifed(lambda u, t: ((u @ w) @ w / ((t @ w) @ w))[..., None])[0],
        scalarization_cosine=cosine,
        diffusion=replace(ratio, value=ratio.value / kappa**2, error=ratio.error / kappa**2),
        diffusion_bound=bound,
        coefficients=_estimates(c.mean(0) / c.mean(0).sum(), _normalized((c.sum(0) - c) / (n - 1))),
        chance_first=first,
        chance_pairs=pairs,
        by_group=_by_group(frozen, w, groups),
    )


def _products(P: Array) -> tuple[Array, Array]:
    """U (K, K) of products P (n, n, K, K), and what it is without each micro-batch, (n, K, K)."""
    n = len(P)
    same = np.einsum("aaij->aij", P)
    total = P.sum((0, 1)) - same.sum(0)
    row = P.sum(1) - same
    return total / (n * (n - 1)), (total - row - row.transpose(0, 2, 1)) / ((n - 1) * (n - 2))


def _estimates(values: Array, without: Array) -> list[Estimate]:
    """Estimates of values (q,) from what they are without each micro-batch, (n, q)."""
    n = len(without)
    errors = np.sqrt((n - 1) / n * ((without - without.mean(0)) ** 2).sum(0))
    return [Estimate(float(v), float(e), n) for v, e in zip(values, errors, strict=True)]


def _normalized(c: Array) -> Array:
    return c / c.sum(-1, keepdims=True)


def _came_grad(P: Array, c: Array, w: Array) -> Callable[[NDArray[np.int64]], Array]:
    """The function of chosen micro-batches that gives cos(E F, Σc̄_ig_i), tr Cov F/tr Σ_LS and 1 + SNR_J.

    All of it from the projections P, whose errors go the same way in numerators and denominators.
    """
    half = np.einsum("ai,abij->abj", c, P)  # F_a times g_j of b
    came = np.einsum("abj,bj->ab", half, c)
    linear = np.einsum("i,abij,j->ab", w, P, w)

    def measured(index: NDArray[np.int64]) -> Array:
        n, chosen = len(index), np.ix_(index, index)
        own, apart = c[index], ~np.eye(len(index), dtype=bool)
        others = (own.sum(0) - own[:, None] - own[None]) / (n - 2)
        product = (half[chosen] * others).sum(-1)[apart].mean()
        centre = np.einsum("abi,abij,abj->ab", others, P[chosen], others)[apart].mean()
        squared, joint = came[chosen][apart].mean(), linear[chosen][apart].mean()
        spread, joint_spread = came[chosen].diagonal().mean() - squared, linear[chosen].diagonal().mean() - joint
        with np.errstate(invalid="ignore"):
            cosine = product / (np.sqrt(squared) * np.sqrt(centre))  # NaN where a squared length is not found positive
            return np.array([cosine, spread / joint_spread, 1 + joint / joint_spread])

    return measured


def _chance(p: Array) -> tuple[float, float]:
    """Conflict of the first task with any other, and share of pairs, of gradients (n, K, m) less their mean."""
    noise = p - p.mean(0)
    products = np.einsum("aim,ajm->aij", noise, noise)
    rows, columns = np.triu_indices(p.shape[1], 1)
    return float((products[:, 0, 1:] < 0).any(1).mean()), float((products[:, rows, columns] < 0).mean())


def _by_group(frozen: FrozenSet, w: Array, groups: tuple[str, ...]) -> dict[str, list[Estimate]]:
    gramians, means, p = frozen.gramian_groups, frozen.mean_gramian_groups, frozen.projected_groups
    if not groups or gramians is None or means is None or p is None:
        return {}
    n = len(p)
    exact = (n**2 * means - gramians.sum(0)) / (n * (n - 1))
    found = {}
    for at, name in enumerate(groups):
        part = p[:, at].astype(np.float64)
        without = _products(np.einsum("aim,bjm->abij", part, part))[1]
        found[name] = _estimates(exact[at] @ w, without @ w)
    return found
