"""Percentile bootstrap intervals, in moving blocks where observations are serially correlated."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A point estimate with its 95 % percentile interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def initial_time(series: NDArray[np.float64], lags: int) -> float:
    """1 + 2Σρ over the lags below ``lags`` up to the first autocorrelation that is not positive; 1 for a constant.

    Example:
        >>> initial_time(np.array([1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0]), 4)
        1.25
    """
    centred = series - series.mean()
    variance = float(centred @ centred)
    time = 1.0
    if variance > 0:
        for lag in range(1, lags):
            correlation = float(centred[:-lag] @ centred[lag:]) / variance
            if correlation <= 0:
                break
            time += 2 * correlation
    return time


def block_length(series: NDArray[np.float64]) -> int:
    """Length of moving blocks: twice the integrated autocorrelation time, at least n^(1/3) and at most n/4.

    The autocorrelations are summed until the first one that is not positive.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> block_length(rng.normal(size=1000))
        10
        >>> block_length(np.repeat(rng.normal(size=50), 20)) > 20
        True
    """
    n = len(series)
    time = initial_time(series, n // 4)
    return int(max(1, min(n // 4, max(np.ceil(n ** (1 / 3) - 1e-9), np.ceil(2 * time) if time > 1.5 else 1))))


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    n: int,
    *,
    block: int = 1,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of a statistic of n observations.

    Args:
        statistic: maps (n,) indices of observations to a number.
        n: number of observations.
        block: length of the moving blocks; 1 for independent observations.
        replicates: resamples.
        seed: of the resampling.

    Example:
        >>> data = np.random.default_rng(1).normal(size=400)
        >>> interval = bootstrap(lambda index: data[index].mean(), 400)
        >>> interval.low < interval.value < interval.high, round(interval.high - interval.low, 1)
        (True, 0.2)
    """
    rng = np.random.default_rng(seed)
    blocks = -(-n // block)
    starts = rng.integers(0, n - block + 1, size=(replicates, blocks))
    indices = (starts[:, :, None] + np.arange(block)).reshape(replicates, -1)[:, :n]
    values = np.array([statistic(index) for index in indices])
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(np.arange(n))), float(low), float(high))
