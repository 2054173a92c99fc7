"""k-means on a line, and codebooks that cost few bits: what must hold for any values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lilliput.prune.codebooks import (
    cheapest_codes,
    economize,
    entropy,
    initial,
    kmeans,
    level_bits,
    sharing_ratio,
)

VALUES = arrays(
    np.float64, st.integers(1, 120), elements=st.floats(-8, 8, allow_subnormal=False, width=32)
)
STARTS = st.sampled_from(["linear", "density", "random", "kmeans++"])


def distortion(
    values: np.ndarray, levels: np.ndarray, importance: np.ndarray | None = None
) -> float:
    factors = np.ones(len(values)) if importance is None else importance
    return float((factors * np.square(values[:, None] - levels).min(1)).sum())


@settings(max_examples=25)
@given(VALUES, st.integers(1, 20), STARTS)
def test_the_distortion_never_rises(values: np.ndarray, count: int, start) -> None:
    book = kmeans(values, count, start=start)
    scale = np.square(values).sum() + 1e-12
    assert all(after <= before + 1e-9 * scale for before, after in pairwise(book.history))
    assert len(book.levels) <= count
    assert (np.diff(book.levels) > 0).all()
    if book.history:
        assert np.square(values - book.decoded).sum() <= book.history[0] + 1e-9 * scale


@settings(max_examples=15)
@given(VALUES, st.integers(1, 12), STARTS)
def test_no_round_makes_it_worse(values: np.ndarray, count: int, start) -> None:
    lost = []
    for rounds in range(1, 7):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lilliput.prune.codebooks.ROUNDS", rounds)
            lost.append(distortion(values, kmeans(values, count, start=start).levels))
    scale = np.square(values).sum() + 1e-12
    assert all(after <= before + 1e-9 * scale for before, after in pairwise(lost))


@settings(max_examples=25)
@given(VALUES, st.sampled_from([0, 1, 7]), STARTS)
def test_no_fewer_levels_than_different_values_make_no_error(
    values: np.ndarray, more: int, start
) -> None:
    different = np.unique(values)
    book = kmeans(values, len(different) + more, start=start)
    assert np.array_equal(book.decoded, values)
    assert np.array_equal(book.levels, different)


@settings(max_examples=25)
@given(VALUES, st.integers(1, 20), STARTS)
def test_every_value_takes_its_nearest_level_and_every_level_is_its_members_mean(
    values: np.ndarray, count: int, start
) -> None:
    book = kmeans(values, count, start=start)
    scale = float(np.abs(values).max()) + 1e-12
    assert np.square(values - book.decoded).sum() == pytest.approx(
        distortion(values, book.levels), abs=1e-9 * scale**2 * len(values)
    )
    for number, level in enumerate(book.levels):
        assert values[book.codes == number].mean() == pytest.approx(level, abs=1e-9 * scale)


@settings(max_examples=25)
@given(VALUES, st.integers(2, 20))
def test_linear_levels_cover_least_and_largest(values: np.ndarray, count: int) -> None:
    levels = initial(np.sort(values), count, "linear")
    assert levels[0] == values.min()
    assert levels[-1] == values.max()
    assert len(levels) == count


def test_density_levels_cut_equal_shares() -> None:
    assert initial(np.arange(8.0), 2, "density").tolist() == [1.75, 5.25]


def test_random_levels_are_values_and_the_seed_decides() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=100))
    for start in ("random", "kmeans++"):
        drawn = [initial(values, 8, start, np.random.default_rng(s)) for s in (1, 1, 2)]
        assert np.isin(drawn[0], values).all()
        assert np.array_equal(drawn[0], drawn[1])
        assert not np.array_equal(drawn[0], drawn[2])


def test_it_is_lloyds_algorithm() -> None:
    """The same levels as the textbook's loop over all pairs, importance and all."""
    rng = np.random.default_rng(3)
    values, importance = rng.normal(size=400), rng.uniform(0.1, 2, 400)
    levels = np.linspace(values.min(), values.max(), 6)
    for _ in range(300):
        codes = np.square(values[:, None] - levels).argmin(1)
        levels = np.array(
            [np.average(values[codes == k], weights=importance[codes == k]) for k in range(6)]
        )
    book = kmeans(values, 6, importance=importance)
    assert np.allclose(book.levels, levels, atol=1e-12)


def test_an_empty_cluster_begins_anew_where_the_error_is() -> None:
    """Linear levels leave the middle empty; no level may stay there."""
    values = np.array([0.0, 0.1, 0.2, 9.8, 9.9, 10.0])
    book = kmeans(values, 4)
    assert len(book.levels) == 4
    assert np.square(values - book.decoded).sum() < 0.02


def test_important_values_are_served_better() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0])
    plain = kmeans(values, 1)
    weighted = kmeans(values, 1, importance=np.array([0, 0, 0, 1.0]))
    assert plain.levels.tolist() == [1.5]
    assert weighted.levels[0] == pytest.approx(3.0, abs=1e-6)


@settings(max_examples=25)
@given(VALUES, st.integers(1, 12), st.floats(0, 2), st.integers(0, 500))
def test_error_and_bits_together_never_rise(
    values: np.ndarray, count: int, price: float, zeros: int
) -> None:
    levels = np.concatenate([[0.0], kmeans(values, count).levels])
    others = np.zeros(len(levels), int)
    others[0] = zeros
    book = economize(values, levels, price, elsewhere=others, moving=np.arange(len(levels)) > 0)
    scale = book.history[0] + 1e-9
    assert all(after <= before + 1e-9 * scale for before, after in pairwise(book.history))
    assert len(book.levels) <= len(levels)
    assert len(book.codes) == len(values)


def test_free_bits_change_nothing_that_lloyd_left() -> None:
    values = np.random.default_rng(0).normal(size=500)
    book = kmeans(values, 8)
    assert np.allclose(economize(values, book.levels, 0.0).decoded, book.decoded, atol=1e-6)


def test_a_dearer_bit_gives_fewer_bits_and_fewer_levels() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    levels = kmeans(values, 16).levels
    books = [economize(values, levels, price) for price in (0.0, 0.02, 0.2)]
    bits = [entropy(book.codes) for book in books]
    assert bits[0] > bits[1] > bits[2]
    assert len(books[2].levels) < 16


def test_many_zeros_draw_small_values_to_them_and_none_do_not() -> None:
    values = np.array([0.05, -0.05, 1.0, -1.0, 1.0, -1.0])
    levels = np.array([0.0, -1.0, -0.05, 0.05, 1.0])
    moving = np.array([False, True, True, True, True])

    def with_zeros(count: int) -> np.ndarray:
        others = np.array([count, 0, 0, 0, 0])
        return economize(values, levels, 0.01, elsewhere=others, moving=moving).decoded

    assert with_zeros(1000)[:2].tolist() == [0.0, 0.0]
    assert (with_zeros(0) != 0).all()


def test_levels_that_may_not_move_do_not() -> None:
    values = np.random.default_rng(0).normal(size=200)
    book = economize(values, np.arange(-3.0, 4.0), 0.05, moving=np.zeros(7, bool))
    assert np.isin(book.levels, np.arange(-3.0, 4.0)).all()


def test_the_cheapest_level_is_found() -> None:
    codes = cheapest_codes(np.array([0.4]), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.ones(1))
    assert codes.tolist() == [1]


def test_bits_of_levels_are_those_of_an_ideal_code() -> None:
    assert level_bits(np.array([2, 1, 1])).tolist() == [1.0, 2.0, 2.0]
    assert level_bits(np.array([1, 0]))[1] == np.inf


def test_the_papers_example_of_sharing() -> None:
    assert sharing_ratio(16, 4) == 3.2
