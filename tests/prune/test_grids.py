"""Uniform grids: exact integers, steps of the smallest error, zeros that stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lilliput.prune.codebooks import entropy
from lilliput.prune.grids import (
    economical_integers,
    fit_steps,
    integers,
    limit_of,
    on_grid,
)

ROWS = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.floats(-4, 4, allow_subnormal=False, width=32),
)


@settings(max_examples=25)
@given(ROWS, st.integers(2, 8))
def test_weights_are_integers_times_the_step_to_the_last_bit(rows: np.ndarray, bits: int) -> None:
    limit = limit_of(bits)
    steps = fit_steps(rows, limit)
    made = on_grid(rows, steps, limit)
    assert made.dtype == np.float32
    whole = np.rint(made / steps[:, None])
    assert np.abs(whole).max() <= limit
    assert np.array_equal(whole.astype(np.float32) * steps[:, None], made)
    assert (made[rows == 0] == 0).all()
    assert not np.signbit(made[made == 0]).any()
    assert np.array_equal(on_grid(made, steps, limit), made)


@settings(max_examples=25)
@given(ROWS, st.integers(2, 8))
def test_the_step_is_no_worse_than_the_one_that_clips_nothing(rows: np.ndarray, bits: int) -> None:
    limit = limit_of(bits)
    plain = np.abs(rows).max(1) / limit
    plain = np.where(plain > 0, plain, 1.0).astype(np.float32)
    ours, theirs = (
        np.square(rows - on_grid(rows, steps, limit)).sum(1)
        for steps in (fit_steps(rows, limit), plain)
    )
    assert (ours <= theirs + 1e-9).all()


def test_values_on_a_grid_find_it() -> None:
    whole = np.random.default_rng(0).integers(-7, 8, (1, 300))
    step = fit_steps(whole * 0.125, 7)
    assert step[0] == pytest.approx(0.125, rel=1e-5)


def test_the_best_ternary_step_of_a_normal_is_the_known_one() -> None:
    """Lloyd-Max for three uniform levels of a unit normal: ±1.2240."""
    rows = np.random.default_rng(0).normal(size=(1, 200_000))
    assert fit_steps(rows, 1)[0] == pytest.approx(1.224, abs=0.01)


def test_important_weights_set_the_step() -> None:
    rows = np.array([[1.0, 0.3]])
    assert fit_steps(rows, 1, np.array([[1.0, 0.0]]))[0] == pytest.approx(1.0)
    assert fit_steps(rows, 1, np.array([[0.0, 1.0]]))[0] == pytest.approx(0.3)


def test_economy_takes_fewer_bits_and_leaves_zeros() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 4000)) * np.array([[1.0], [0.1]])
    rows[rng.random(rows.shape) < 0.5] = 0
    steps = fit_steps(rows, 7)
    plain = integers(rows, steps, 7)
    found = [economical_integers(rows, steps, 7, price) for price in (0.0, 1e-3, 1e-2)]
    assert np.array_equal(found[0], plain)
    assert entropy(plain.ravel()) > entropy(found[1].ravel()) > entropy(found[2].ravel())
    assert all((made[rows == 0] == 0).all() for made in found)
    assert all(np.abs(made).max() <= 7 for made in found)


def test_zeros_alone_stay_zeros() -> None:
    rows = np.zeros((2, 3))
    assert not economical_integers(rows, fit_steps(rows, 7), 7, 0.1).any()
