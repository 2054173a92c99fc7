"""Optimized rounding: never worse than nearest, never outside the grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.encode.moments import Moments
from lilliput.encode.rounding import (
    PAIR_LIMIT,
    Feedback,
    Grid,
    best_target,
    descend,
    feedback,
    objective,
    optimize,
    pair_sums,
)
from lilliput.encode.saturation import can_saturate

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 12))
grids = st.builds(Grid.of, st.sampled_from([7, 8]), paired=st.booleans())


def case(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (G, O, K) and the covariance (G, K, K) of correlated inputs."""
    rng = np.random.default_rng(seed)
    groups, outs, width = shape
    rows = rng.standard_t(3, (groups, outs, width))
    mixed = rng.normal(size=(groups, 40, width)) @ rng.normal(size=(groups, width, width))
    return rows, np.matmul(mixed.transpose(0, 2, 1), mixed) / 40


def fits(steps: np.ndarray, grid: Grid) -> bool:
    inside = steps.min() >= -grid.limit and steps.max() <= min(grid.limit, 127)
    return inside and (not grid.paired or pair_sums(steps).max() <= PAIR_LIMIT)


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(0, 99), grids)
def test_never_worse_than_nearest_and_inside_the_grid(shape, seed, grid) -> None:
    rows, gram = case(shape, seed)
    full = grid.scales(rows)
    nearest = objective(rows, grid.nearest(rows, full), full, gram)
    steps, scales = optimize(rows, gram, grid)
    assert (objective(rows, steps, scales, gram) <= nearest * (1 + 1e-9) + 1e-12).all()
    assert fits(steps, grid)
    np.testing.assert_array_equal(steps, np.rint(steps))


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(0, 99), grids)
def test_descent_only_descends(shape, seed, grid) -> None:
    rows, gram = case(shape, seed)
    scales = grid.scales(rows)
    start = grid.nearest(rows, scales)
    before = objective(rows, start, scales, gram)
    for sweeps in (1, 2, 5):
        after = objective(
            rows, descend(rows, start, scales, gram, grid, sweeps=sweeps), scales, gram
        )
        assert (after <= before * (1 + 1e-9) + 1e-12).all()
        before = after


@settings(deadline=None, max_examples=20)
@given(shapes, st.integers(0, 99), grids)
def test_error_feedback_stays_inside_the_grid(shape, seed, grid) -> None:
    rows, gram = case(shape, seed)
    assert fits(feedback(rows, grid.scales(rows), Feedback.of(gram), grid), grid)


def test_it_really_helps_on_correlated_inputs() -> None:
    rows, gram = case((1, 16, 32), 0)
    grid = Grid(limit=7)
    full = grid.scales(rows)
    nearest = objective(rows, grid.nearest(rows, full), full, gram).sum()
    steps, scales = optimize(rows, gram, grid)
    assert objective(rows, steps, scales, gram).sum() < 0.5 * nearest


def test_the_best_of_a_small_grid_is_found() -> None:
    # Two weights, 49 choices: all can be tried.
    rows = np.array([[[0.52, -0.47]]])
    gram = np.array([[[1.0, 0.95], [0.95, 1.0]]])
    scales = np.array([[0.2]], np.float32)
    grid = Grid(limit=3)
    start = grid.nearest(rows, scales)
    found = objective(rows, descend(rows, start, scales, gram, grid), scales, gram)[0, 0]
    tried = [
        objective(rows, np.array([[[float(a), float(b)]]]), scales, gram)[0, 0]
        for a in range(-3, 4)
        for b in range(-3, 4)
    ]
    assert found <= np.partition(tried, 1)[1]


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 9))
def test_paired_scales_are_safe_and_finer_than_seven_bits(seed: int, width: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(1, 5, width))
    safe, seven = Grid.of(8, paired=True), Grid.of(7, paired=False)
    assert (safe.scales(rows) <= seven.scales(rows) * (1 + 1e-6)).all()
    steps = safe.nearest(rows, safe.scales(rows))
    assert not can_saturate(steps[0].astype(np.int8)).any()


def test_targets_make_up_for_the_error_of_the_inputs() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 4000, 6))
    damaged = x * 0.7 + rng.normal(0, 0.2, x.shape)
    moments = Moments.zeros(1, 6)
    moments.add(x, damaged)
    rows = rng.normal(size=(1, 3, 6))
    target = best_target(rows, moments, damping=1e-6)
    wanted, plain = x @ rows[0].T, damaged @ rows[0].T
    better = damaged @ target[0].T
    assert np.mean((better - wanted) ** 2) < 0.9 * np.mean((plain - wanted) ** 2)


def test_without_data_the_weights_stay_put() -> None:
    moments = Moments.zeros(1, 4)
    moments.count[:] = 1
    rows = np.random.default_rng(0).normal(size=(1, 3, 4))
    np.testing.assert_allclose(best_target(rows, moments), rows, rtol=1e-6)


def test_moments_of_parts_add_up() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30, 5)), rng.normal(size=(2, 30, 5))
    whole, parts = (Moments.zeros(2, 5) for _ in range(2))
    whole.add(x, y)
    parts.add(x[:, :10], y[:, :10])
    parts.add(x[:, 10:], y[:, 10:])
    for name in ("covariance", "cross_covariance"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name))
    assert parts.count.tolist() == [30, 30]


@pytest.mark.parametrize("pair", [(100, 100), (-100, -29), (127, 2)])
def test_pairs_over_the_limit_give_way(pair: tuple[int, int]) -> None:
    grid = Grid(paired=True)
    steps = grid.nearest(np.array([[[float(v) for v in pair]]]), np.ones((1, 1)))
    assert pair_sums(steps).max() <= PAIR_LIMIT
    assert np.abs(steps - pair).max() <= (sum(map(abs, pair)) - PAIR_LIMIT + 1) / 2
