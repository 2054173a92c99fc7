"""Integers chosen for their coded size: priced exactly, dearer bits are fewer, grids are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.encode.rate import bits_per_unit, code_length, economize, fine_step
from lilliput.encode.rounding import PAIR_LIMIT, Feedback, Grid, descend, objective, pair_sums

shapes = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(2, 12))


def case(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (G, O, K) and the covariance (G, K, K) of correlated inputs."""
    rng = np.random.default_rng(seed)
    groups, _, width = shape
    rows = rng.normal(size=shape)
    mixed = rng.normal(size=(groups, 60, width)) @ rng.normal(size=(groups, width, width))
    return rows, np.matmul(mixed.transpose(0, 2, 1), mixed) / 60


def test_the_length_of_equal_rows_is_their_entropy() -> None:
    steps = np.array([[[-1.0, 1.0, -1.0, 1.0]] * 2])
    assert code_length(steps) == pytest.approx(8.0)
    assert code_length(np.zeros((1, 3, 5))) == 0.0


def test_rows_of_their_own_size_are_coded_by_themselves() -> None:
    quiet, loud = np.array([1.0, -1.0] * 8), np.array([16.0, -16.0] * 8)
    assert code_length(np.stack([quiet, loud])[None]) == pytest.approx(32.0)


def test_a_unit_costs_less_where_weights_are_large() -> None:
    steps = np.array([[[1.0, 1.0], [20.0, 20.0]]])
    costs = bits_per_unit(steps)
    assert costs.shape == steps.shape
    assert (costs[0, 0] > costs[0, 1]).all()
    assert costs[0, 0, 0] == pytest.approx(np.log2(1 + 1 / 1.05), rel=0.01)


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(0, 99), st.floats(0.0, 2.0))
def test_descent_lowers_error_and_price_together(shape, seed, toll) -> None:
    rows, gram = case(shape, seed)
    grid = Grid()
    scales = 8 * grid.scales(rows)
    tolls = np.full(rows.shape, toll)

    def cost(steps: np.ndarray) -> np.ndarray:
        return objective(rows, steps, scales, gram) + (tolls * np.abs(steps)).sum(-1)

    start = grid.nearest(rows, scales)
    found = descend(rows, start, scales, gram, grid, tolls)
    assert (cost(found) <= cost(start) * (1 + 1e-9) + 1e-9).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.booleans())
def test_dearer_bits_are_fewer_and_the_error_larger(seed, paired) -> None:
    rows, gram = case((1, 24, 48), seed)
    grid = Grid.of(8, paired=paired)
    bits, errors = [], []
    for price in (1e-4, 1e-2, 1.0):
        steps, scales = economize(rows, gram, grid, price)
        bits.append(code_length(steps))
        errors.append(float(objective(rows, steps, scales, gram).sum()))
        assert np.abs(steps).max() <= 127
        assert not paired or pair_sums(steps).max() <= PAIR_LIMIT
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)
    assert bits[0] > 1.5 * bits[-1]


def test_no_layer_can_do_better_by_rounding_to_nearest_at_any_step() -> None:
    rows, gram = case((1, 24, 48), 3)
    price = 0.05
    steps, scales = economize(rows, gram, Grid(), price)
    ours = objective(rows, steps, scales, gram).sum() + price * code_length(steps)
    for step in np.geomspace(0.02, 2.0, 30):
        wide = np.full(rows.shape[:2], step, np.float32)
        plain = Grid().nearest(rows, wide)
        assert objective(rows, plain, wide, gram).sum() + price * code_length(plain) > ours


def test_the_step_grows_with_the_root_of_the_price() -> None:
    factor = Feedback.of(case((1, 4, 8), 0)[1])
    assert fine_step(factor, 4.0) == pytest.approx(2 * fine_step(factor, 1.0))
