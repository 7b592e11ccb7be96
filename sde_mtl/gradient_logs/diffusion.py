r"""The diffusion ratio tr Σ_LS / Σω_i² tr Σ_ii of a gradient log, measured and predicted (T3).

At frozen parameters the micro-batches are independent, so that a plain bootstrap gives the intervals. Three routes:
from the exact Gramians; directly as the variance of the projected joint gradient; and *predicted out of sample*, the
closed form T3 at the cross-covariances of the first half of the micro-batches against the variance of the joint
gradient in the second half.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sde_mtl.gradient_logs._bootstrap import Interval, bootstrap
from sde_mtl.gradient_logs.reader import FrozenSet
from sde_mtl.theory.t03_diffusion_decay import trace_ratio

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Diffusion:
    """Diffusion ratio at one frozen set of micro-batches.

    Attributes:
        step, micro_batches: which set.
        traces: (K, K) unbiased tr Σ_ij.
        correlation: (K, K) tr Σ_ij / √(tr Σ_ii tr Σ_jj).
        ratio: tr Σ_LS / Σω_i²tr Σ_ii with its interval.
        direct: variance of the projected joint gradient over Σω_i² the variances of the projected task gradients;
            differs from ``ratio``, which is T3 at the exact cross-covariances, by the projection's error alone.
        predicted, held_out: T3 at the first half's moments; ``direct`` on the second half, with its interval.
        signal_to_noise: (K,) ‖E g_i‖² / tr Σ_ii of one micro-batch.
    """

    step: int
    micro_batches: int
    traces: list[list[float]]
    correlation: list[list[float]]
    ratio: Interval
    direct: float
    predicted: float
    held_out: Interval
    signal_to_noise: list[float]


def diffusion_at(frozen: FrozenSet, w: Array, *, replicates: int = 2000, seed: int = 0) -> Diffusion:
    """Measure and predict the diffusion ratio at one frozen set.

    Args:
        frozen: with two or more micro-batches.
        w: (K,) task weights.
        replicates: bootstrap resamples.
        seed: of the bootstrap.

    Example:
        Independent noise in two tasks, many micro-batches:

        >>> g = np.random.default_rng(0).normal(size=(100, 2, 20))
        >>> frozen = FrozenSet(0, np.ones((100, 2)), g @ g.transpose(0, 2, 1), g.astype(np.float32), None)
        >>> ratio = diffusion_at(frozen, np.ones(2), replicates=100).ratio
        >>> ratio.low < 1 < ratio.high
        True
    """
    p = frozen.projected.astype(np.float64)
    n = len(p)
    mean = frozen.mean_gramian
    if mean is None:
        average = p.mean(0)
        mean = average @ average.T
    traces = n / (n - 1) * (frozen.gramian.mean(0) - mean)
    own = np.sqrt(np.diag(traces))
    products = np.einsum("aim,bjm->abij", p, p)

    def ratio_of(index: NDArray[np.int64]) -> float:
        """Projected traces, from inner products between the chosen micro-batches alone."""
        chosen = products[np.ix_(index, index)]
        within = np.einsum("aaij->ij", chosen) / len(index)
        return float(trace_ratio(within - chosen.mean((0, 1)), w))

    half = n // 2
    exact = float(trace_ratio(traces, w))
    spread = bootstrap(ratio_of, n, replicates=replicates, seed=seed)
    return Diffusion(
        step=frozen.step,
        micro_batches=n,
        traces=traces.tolist(),
        correlation=(traces / np.outer(own, own)).tolist(),
        ratio=Interval(exact, spread.low + exact - spread.value, spread.high + exact - spread.value),
        direct=_direct(p, w),
        predicted=ratio_of(np.arange(half)),
        held_out=bootstrap(
            lambda index: _direct(p[half:][index], w), n - half, replicates=min(replicates, 500), seed=seed
        ),
        signal_to_noise=np.maximum((np.diag(mean) - np.diag(traces) / n) / np.diag(traces), 0).tolist(),
    )


def _direct(p: Array, w: Array) -> float:
    """Variance of the projected joint gradient itself, over the weighted variances of its parts."""
    joint = np.einsum("k,nkm->nm", w, p)
    own = float((w**2 * p.var(0).sum(-1)).sum())
    return float(joint.var(0).sum()) / own if own > 0 else float("nan")
