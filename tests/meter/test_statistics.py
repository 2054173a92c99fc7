"""The sums behind a verdict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.meter import statistics
from lilliput.meter.statistics import verdict


@given(st.integers(2, 500), st.integers(1, 20), st.integers(1, 9), st.integers(0, 99))
def test_resamples_are_whole_blocks_of_rounds(
    rounds: int, resamples: int, length: int, seed: int
) -> None:
    length = min(length, rounds)
    rng = np.random.default_rng(seed)
    index = statistics.resampled_rounds(rounds, resamples, rng, length=length)
    assert index.shape == (resamples, rounds)
    assert index.min() >= 0
    assert index.max() < rounds
    assert (index % length == np.arange(rounds) % length).all()
    starts = index - index % length
    inside = np.arange(rounds - 1) % length != length - 1
    assert (np.diff(starts, axis=1)[:, inside] == 0).all()


def test_files_are_compared_round_by_round() -> None:
    """A machine at half its pace for half of the rounds changes both, and no ratio."""
    pace = np.array([[1], [1], [2], [2]])
    ours, theirs = 30 * pace * np.ones((4, 3)), 20 * pace * np.ones((4, 5))
    np.testing.assert_allclose(statistics.ratios_of_blocks(ours, theirs), np.log(1.5))
    np.testing.assert_allclose(statistics.ratios_of_blocks(ours, theirs, 2), [np.log(1.5)])


def test_being_loaded_first_cancels_in_two_loads() -> None:
    """What is loaded first is 2 % slower: there and back again make one honest figure."""
    first = np.exp(np.repeat([0.02, -0.02, -0.02, 0.02], 3))[:, None]
    blocks = statistics.ratios_of_blocks(1.5 * first, np.ones((12, 4)), 4)
    np.testing.assert_allclose(blocks, [np.log(1.5)] * 2)


@given(st.lists(st.floats(-9.0, 9.0), min_size=1, max_size=40))
def test_the_midmean_is_that_of_the_middle_half(values: list[float]) -> None:
    found = float(statistics.midmean(np.array(values)))
    beyond = len(values) // 4
    middle = sorted(values)[beyond : len(values) - beyond]
    assert found == pytest.approx(sum(middle) / len(middle))
    assert min(values) - 1e-9 <= found <= max(values) + 1e-9


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


def test_drift_compares_the_ends() -> None:
    rising = np.linspace(1000, 1300, 90).astype(np.int64)[:, None]
    assert statistics.drift(rising) == pytest.approx(0.18, abs=0.03)
    assert statistics.drift(rising[::-1]) < -0.1
    assert statistics.drift(rising[:5]) == 0.0


def test_the_interval_is_the_central_95_percent_where_much_is_drawn() -> None:
    values = np.arange(1001.0)
    assert statistics.percentile_interval(values, 10**6) == pytest.approx((25.0, 975.0), abs=0.01)
    low, high = statistics.percentile_interval(values, 6)
    assert low < 5.0
    assert high > 995.0
    assert statistics.percentile_interval(values, 1) == (0.0, 1000.0)


@pytest.mark.parametrize("freedom", [4, 5, 7, 20, 300])
def test_students_t_is_that_of_the_tables(freedom: int) -> None:
    table = pytest.importorskip("scipy.stats")
    assert statistics.student_t(freedom) == pytest.approx(table.t.ppf(0.975, freedom), rel=0.003)


@pytest.mark.parametrize("draws", [6, 12])
def test_intervals_from_little_cover_what_they_promise(draws: int) -> None:
    rng = np.random.default_rng(draws)
    covered = {"central": 0, "ours": 0}
    for _ in range(400):
        sample = rng.standard_normal(draws)
        means = sample[rng.integers(0, draws, (1000, draws))].mean(axis=1)
        for name, known in {"central": 10**6, "ours": draws}.items():
            low, high = statistics.percentile_interval(means, known)
            covered[name] += low <= 0.0 <= high
    assert covered["central"] < 0.935 * 400
    assert covered["ours"] == pytest.approx(0.95 * 400, abs=0.03 * 400)
