"""Scales, zero points and rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lilliput.encode.integers import (
    Affine,
    from_rows,
    round_rows,
    row_scales,
    to_rows,
    weight_limit,
)


@settings(deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_zero_is_always_a_level(a: float, b: float) -> None:
    affine = Affine.of_range(min(a, b), max(a, b))
    assert affine.dequantize(affine.quantize(np.zeros(1)))[0] == 0.0


@settings(deadline=None)
@given(st.floats(-1e3, -1e-2), st.floats(1e-2, 1e3))
def test_inside_the_range_no_value_moves_by_more_than_half_a_level(low: float, high: float) -> None:
    affine = Affine.of_range(low, high)
    # The grid is shifted so that 0 fits, which can cost half a level at the ends.
    values = np.linspace(low, high, 301)
    moved = affine.dequantize(affine.quantize(values)) - values
    assert np.abs(moved).max() <= 1.001 * affine.scale


def test_levels_come_back_unchanged() -> None:
    affine = Affine.of_range(-1.0, 2.0)
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(affine.quantize(affine.dequantize(levels)), levels)


def test_beyond_the_range_values_saturate() -> None:
    affine = Affine.of_range(0.0, 1.0)
    np.testing.assert_array_equal(affine.quantize(np.array([-5.0, 0.25, 99.0])), [0, 64, 255])


def test_a_tensor_that_was_always_zero_gets_the_levels_of_zero_to_one() -> None:
    assert Affine.of_range(0.0, 0.0) == Affine.of_range(0.0, 1.0)


@pytest.mark.parametrize(
    ("shape", "axis"), [((6, 3, 2, 4), 0), ((5, 7), 0), ((5, 7), 1), ((3, 6, 2, 2), 1)]
)
def test_rows_and_back(shape: tuple[int, ...], axis: int) -> None:
    weight = np.arange(np.prod(shape)).reshape(shape)
    rows = to_rows(weight, axis)
    assert rows.shape[0] == shape[axis]
    np.testing.assert_array_equal(from_rows(rows, shape, axis), weight)


def test_a_convolutions_row_runs_over_channels_fastest() -> None:
    weight = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(to_rows(weight, 0)[0, :4], [0, 4, 8, 1])


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, (3, 8), elements=st.floats(-100, 100)),
    st.sampled_from([7, 8]),
)
def test_the_largest_weight_of_a_row_is_the_limit(rows, bits: int) -> None:
    limit = min(weight_limit(bits), 127)
    scales = row_scales(rows, limit)
    steps = round_rows(rows, scales, limit)
    for row, scale, step in zip(rows, scales, steps, strict=True):
        if np.abs(row).max() > 1e-6:
            assert np.abs(step.astype(int)).max() == limit
        assert np.abs(step * scale - row).max() <= 0.51 * scale


def test_seven_bits_let_two_products_fit_sixteen() -> None:
    assert 2 * 255 * weight_limit(7) <= 32767
    assert 2 * 255 * weight_limit(8) > 32767
