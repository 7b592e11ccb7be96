import numpy as np
import pytest
from scipy import stats

from sde_mtl.gradient_logs import mean_interval, ratio_interval, share_interval
from sde_mtl.gradient_logs._serial import autocorrelation_time


def autoregression(n: int, correlation: float, seed: int) -> np.ndarray:
    series = np.random.default_rng(seed).normal(size=n + 200)
    for t in range(1, n + 200):
        series[t] += correlation * series[t - 1]
    return series[200:]


def coverage(n: int, correlation: float, repetitions: int) -> float:
    """How often the interval of the mean contains 0."""
    intervals = [mean_interval(autoregression(n, correlation, seed)) for seed in range(repetitions)]
    return float(np.mean([interval.low <= 0 <= interval.high for interval in intervals]))


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_means_of_slow_series_are_covered(correlation: float) -> None:
    """A quick look: 0.95 within 4 SE of 400 series, and 2 % that a short series of 0.9 costs."""
    assert 0.95 - 0.02 - 4 * 0.011 < coverage(150, correlation, 400) < 0.95 + 4 * 0.011


@pytest.mark.slow
@pytest.mark.parametrize("n", [150, 500])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_coverage_is_what_it_says(n: int, correlation: float) -> None:
    assert 0.92 <= coverage(n, correlation, 4000) <= 0.97


def test_shares_of_slow_series_are_covered_and_plain_ones_are_not() -> None:
    """Sign of an AR(1) below a threshold; Clopper and Pearson's interval for independent steps is the control."""
    level = stats.norm.ppf(0.2) / np.sqrt(1 - 0.9**2)
    hits = np.zeros(2)
    for seed in range(400):
        series = autoregression(300, 0.9, seed)
        interval = share_interval(series < level, series)
        plain = stats.binomtest(int((series < level).sum()), 300).proportion_ci()
        hits += [interval.low <= 0.2 <= interval.high, plain.low <= 0.2 <= plain.high]
    assert hits[0] / 400 > 0.90
    assert hits[1] / 400 < 0.65


def test_never_and_always_have_a_bound() -> None:
    """The rule of three, and fewer effective steps where the series behind is slow."""
    assert share_interval(np.zeros(500)).high == pytest.approx(3 / 500, rel=0.01)
    assert share_interval(np.ones(500)).low == pytest.approx(1 - 3 / 500, rel=0.01)
    slow = autoregression(500, 0.9, 0)
    assert share_interval(np.zeros(500), slow).high > 5 * 3 / 500


def test_ratios_of_means_are_covered() -> None:
    hits = 0
    for seed in range(300):
        x, y = autoregression(200, 0.5, seed), autoregression(200, 0.5, seed + 10_000)
        interval = ratio_interval(6 + x, 3 + y)
        hits += interval.low <= 2 <= interval.high
    assert abs(hits / 300 - 0.95) < 4 * 0.0126


def test_what_has_no_mean_has_no_interval() -> None:
    assert np.isnan(mean_interval([np.nan, np.nan]).low)
    assert np.isnan(ratio_interval([1.0, 2.0], [1.0, -1.0]).value)
    assert mean_interval([1.0, np.nan, 1.0, 1.0]).value == 1


@pytest.mark.parametrize(("correlation", "time"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_autocorrelation_time_of_an_ar(correlation: float, time: float) -> None:
    found = np.median([autocorrelation_time(autoregression(2000, correlation, seed)) for seed in range(20)])
    assert found == pytest.approx(time, rel=0.25)
