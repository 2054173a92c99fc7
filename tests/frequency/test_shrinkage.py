"""Shrinkage in closed form against a search, and the quantizer's promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.frequency.shrinkage import hard, quantized, soft

numbers = st.floats(-2, 2, allow_subnormal=False)


@given(numbers, st.floats(0, 2))
def test_soft_is_the_minimum_of_the_penalised_square(value, penalty):
    grid = np.linspace(-2.5, 2.5, 50_001)
    best = grid[((grid - value) ** 2 + penalty * np.abs(grid)).argmin()]
    assert soft(np.array([value]), penalty)[0] == pytest.approx(best, abs=1.1e-4)


@given(numbers, st.floats(0, 2))
def test_what_is_taken_off_is_half_the_penalty_at_most(value, penalty):
    found = soft(np.array([value]), penalty)[0]
    off = value - found
    if found:
        assert off == pytest.approx(np.sign(found) * penalty / 2)
    else:
        assert abs(off) <= penalty / 2


@given(numbers, st.floats(0, 2))
def test_hard_keeps_the_same_coefficients_and_their_values(value, penalty):
    given_values = np.array([value])
    kept = hard(given_values, penalty)
    assert (kept != 0) == (soft(given_values, penalty) != 0)
    assert kept[0] in (0, value)


@given(numbers, st.floats(1, 500), st.floats(0.1, 1))
def test_the_quantizer_is_near_idempotent_odd_and_keeps_zero(value, omega, clip):
    given_values = np.array([value])
    whole = quantized(given_values, omega, clip)
    back = whole / omega
    excess = max(abs(value) - clip, 0)
    assert abs(value - back[0]) <= excess + 0.5 / omega + 1e-9
    if excess == 0:
        assert abs(value - back[0]) <= 0.5 / omega + 1e-9
    assert quantized(back, omega, np.inf) == whole
    assert quantized(-given_values, omega, clip) == -whole
    assert quantized(np.zeros(1), omega, clip) == 0


@given(numbers, st.integers(1, 200), st.integers(1, 100))
def test_beyond_the_clip_range_the_error_is_the_excess(value, omega, levels):
    clip = levels / omega
    whole = quantized(np.array([value]), omega, clip)
    assert abs(whole[0]) <= levels
    if abs(value) >= clip:
        assert abs(value - whole[0] / omega) == pytest.approx(abs(value) - clip, abs=1e-12)
    assert quantized(whole / omega, omega, clip) == whole
