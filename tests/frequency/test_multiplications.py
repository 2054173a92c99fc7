"""The specification's counter, on numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft

from lilliput.frequency.multiplications import LayerWork, times_fewer, transform_cost


def test_transforms_cost_what_their_definitions_say():
    assert transform_cost(5, 5, "naive") == 625
    assert transform_cost(5, 5) == 250
    assert transform_cost(3, 5) == 3 * 5 * 8
    assert transform_cost(5, 5, "fast") == 59  # 25 log2 5 = 58.05
    assert transform_cost(4, 4, "fast") == 32
    assert transform_cost(1, 1) == transform_cost(5, 5, "none") == 0


def test_five_numbers_are_transformed_by_five_products():
    # what "fast" counts for a 5 × 5 kernel, 59, holds two passes of five such lines
    x = np.random.default_rng(0).normal(size=5)
    a, b, c, d = x[0] + x[4], x[1] + x[3], x[0] - x[4], x[1] - x[3]
    large, little = math.cos(math.pi / 10), math.cos(3 * math.pi / 10)
    products = [
        math.sqrt(5) / 4 * (a - b),
        (a + b) / 4,
        little * (c + d),
        (large - little) * c,
        (large + little) * d,
    ]
    side, middle, turned, first, third = products
    even = a + b + x[2], side + middle - x[2], side - middle + x[2]
    odd = first + turned, turned - third
    cosines = [even[0], odd[0], even[1], odd[1], even[2]]
    np.testing.assert_allclose(cosines, scipy.fft.dct(x, type=2) / 2, atol=1e-12)
    assert 2 * 5 * len(products) <= transform_cost(5, 5, "fast")


def test_a_layer_by_hand():
    work = LayerWork(
        outputs=50, inputs=20, height=5, width=5, positions=64, residuals=1250, centres=40
    )
    assert work.spatial == 64 * 25_000
    assert work.frequency == 64 * (20 * (250 + 40) + 1250)
    assert times_fewer([work]) == pytest.approx(25_000 / 7050)


def test_it_follows_the_formula_of_the_specification():
    """Cin (cost + K d² eta_mu + Cout d² eta_R)."""
    outputs, inputs, centres, eta_mu, eta_r = 64, 32, 16, 0.25, 0.08
    residuals = round(eta_r * 9 * outputs * inputs)
    common = round(eta_mu * 9 * centres)
    work = LayerWork(
        outputs=outputs, inputs=inputs, height=3, width=3, residuals=residuals, centres=common
    )
    formula = inputs * (54 + centres * 9 * eta_mu + outputs * 9 * eta_r)
    assert work.frequency == pytest.approx(formula, abs=1)


def test_layers_are_summed_and_nothing_left_is_no_division_by_zero():
    empty = LayerWork(outputs=2, inputs=2, height=1, width=1, residuals=0)
    full = LayerWork(outputs=2, inputs=2, height=1, width=1, residuals=4)
    assert times_fewer([empty, full]) == 2
    assert times_fewer([empty]) == 4
