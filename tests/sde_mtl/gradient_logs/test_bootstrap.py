import numpy as np
import pytest

from sde_mtl.gradient_logs import block_length, bootstrap


def coverage(correlation: float, block: int | None, repetitions: int = 300, n: int = 400) -> float:
    """How often the 95 % interval of the mean of an AR(1) series contains 0."""
    hits = 0
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        series = rng.normal(size=n)
        for t in range(1, n):
            series[t] += correlation * series[t - 1]
        length = block_length(series) if block is None else block
        interval = bootstrap(lambda i, s=series: float(s[i].mean()), n, block=length, replicates=200, seed=seed)
        hits += interval.low <= 0 <= interval.high
    return hits / repetitions


def test_independent_observations_are_covered() -> None:
    """95 % within 4 SE (0.0126 each); 200 resamples cost about a percent."""
    assert abs(coverage(0.0, 1) - 0.95) < 4 * 0.0126


def test_blocks_repair_what_serial_correlation_breaks() -> None:
    """Negative control: without blocks the interval of an AR(1) with 0.7 covers far too rarely."""
    assert coverage(0.7, 1) < 0.75
    assert coverage(0.7, None) > 0.88


def test_block_length_bounds() -> None:
    rng = np.random.default_rng(0)
    assert block_length(rng.normal(size=8)) in (1, 2)
    assert block_length(np.zeros(100)) >= 1
    assert block_length(np.cumsum(rng.normal(size=400))) == pytest.approx(100, abs=60)
