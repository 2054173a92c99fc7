"""The sums behind a verdict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.meter import statistics
from lilliput.meter.statistics import verdict


@given(st.integers(2, 500), st.integers(1, 20), st.integers(0, 99))
def test_resamples_are_whole_blocks_of_rounds(rounds: int, resamples: int, seed: int) -> None:
    index = statistics.resampled_rounds(rounds, resamples, np.random.default_rng(seed))
    assert index.shape == (resamples, rounds)
    assert index.min() >= 0
    assert index.max() < rounds
    length = max(1, round(rounds ** (1 / 3)))
    steps = np.diff(index, axis=1) % rounds
    inside = np.arange(rounds - 1) % length != length - 1
    assert (steps[:, inside] == 1).all()


def test_medians_of_resamples_are_those_of_all_their_runs() -> None:
    runs = np.arange(12).reshape(4, 3)
    index = np.array([[0, 0, 1, 1], [3, 3, 3, 3]])
    np.testing.assert_allclose(
        statistics.bootstrap_medians(runs, statistics.times_drawn(index)), [2.5, 10.0]
    )


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 99))
def test_medians_are_those_of_the_runs_written_out(rounds: int, burst: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = rng.integers(1, 50, (rounds, burst))
    index = rng.integers(0, rounds, (7, rounds))
    written_out = np.median(runs[index].reshape(7, -1), axis=1)
    np.testing.assert_array_equal(
        statistics.bootstrap_medians(runs, statistics.times_drawn(index)), written_out
    )


@pytest.mark.parametrize(
    ("interval", "floor", "says"),
    [
        ((0.90, 0.95), 0.01, "faster"),
        ((0.90, 0.995), 0.01, "tie"),
        ((0.98, 1.02), 0.01, "tie"),
        ((1.005, 1.02), 0.01, "tie"),
        ((1.02, 1.05), 0.01, "slower"),
        ((1.02, 1.05), 0.03, "tie"),
    ],
)
def test_only_the_interval_says_faster(
    interval: tuple[float, float], floor: float, says: str
) -> None:
    assert verdict(interval, floor) == says


@given(st.floats(0.3, 3.0), st.floats(0.0, 0.2), st.floats(0.0, 0.1))
def test_verdicts_are_symmetric(middle: float, half: float, floor: float) -> None:
    # users-ask 7: the order A/B reversed gives the same verdict
    low, high = middle * (1 - half), middle * (1 + half)
    reversed_ = {"faster": "slower", "slower": "faster", "tie": "tie"}
    forth, back = verdict((low, high), floor), verdict((1 / high, 1 / low), floor)
    on_the_edge = min(abs(high * (1 + floor) - 1), abs(low - 1 - floor)) < 1e-9
    assert on_the_edge or back == reversed_[forth]


def test_spread_ignores_rare_stalls_and_sees_jitter() -> None:
    steady = np.full((100, 5), 1000)
    steady[::20] *= 50
    assert statistics.spread(steady) == 0.0
    rng = np.random.default_rng(0)
    jittery = (1000 * (1 + 0.2 * rng.standard_normal((1000, 1)))).astype(np.int64)
    assert statistics.spread(jittery) == pytest.approx(0.2, rel=0.15)


def test_drift_compares_the_ends() -> None:
    rising = np.linspace(1000, 1300, 90).astype(np.int64)[:, None]
    assert statistics.drift(rising) == pytest.approx(0.18, abs=0.03)
    assert statistics.drift(rising[::-1]) < -0.1
    assert statistics.drift(rising[:5]) == 0.0


def test_the_interval_is_the_central_95_percent() -> None:
    assert statistics.percentile_interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
