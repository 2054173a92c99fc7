"""Histograms in constant memory and the ranges found from them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.encode.integers import Affine
from lilliput.encode.placement import place
from lilliput.encode.prepare import prepare
from lilliput.encode.ranges import (
    BINS,
    METHODS,
    Histogram,
    _candidates,
    _divergences,
    affine_of,
    observe,
    quantization_error,
    range_of,
)
from lilliput.errors import Refused
from lilliput.graph import Graph

batches = st.lists(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30), min_size=1, max_size=5
)


def filled(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


@settings(deadline=None)
@given(batches)
def test_nothing_is_lost_and_the_ends_are_exact(parts) -> None:
    histogram = filled(*parts)
    values = np.concatenate([np.asarray(p, np.float32) for p in parts])
    assert histogram.total == values.size
    assert histogram.low == values.min()
    assert histogram.high == values.max()
    assert histogram.counts.size == BINS


@settings(deadline=None)
@given(batches)
def test_the_order_of_batches_does_not_matter(parts) -> None:
    forward, backward = filled(*parts), filled(*reversed(parts))
    assert forward.reach == backward.reach
    # A value may fall on the edge of a bin of the narrower grid: it moves by one bin at most.
    assert np.abs(forward.counts.cumsum() - backward.counts.cumsum()).max() <= len(parts) * 30
    assert forward.total == backward.total


@settings(deadline=None, max_examples=25)
@given(batches, st.sampled_from(METHODS))
def test_every_range_lies_inside_what_was_seen(parts, method) -> None:
    histogram = filled(*parts)
    low, high = range_of(histogram, method)
    assert min(histogram.low, 0.0) <= low <= 0.0 <= high <= max(histogram.high, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_relu_output_gets_zero_point_zero(method) -> None:
    values = np.maximum(np.random.default_rng(0).normal(size=50_000), 0)
    affine = affine_of(filled(values), method)
    assert affine.zero_point == 0
    assert 0 < affine.scale * 255 <= values.max() * 1.001


def test_least_squares_cuts_an_outlier_off_and_min_max_does_not() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(size=100_000), [50.0]])
    histogram = filled(values)
    low, high = range_of(histogram, "mse")
    assert range_of(histogram, "minmax") == (values.astype(np.float32).min(), 50.0)
    assert high < 45
    assert quantization_error(histogram, low, high) < quantization_error(
        histogram, histogram.low, histogram.high
    )


def divergence(histogram: Histogram, low: float, high: float) -> float:
    """Bin by bin, as the range by entropy is defined."""
    affine = Affine.of_range(low, high)
    inside = np.flatnonzero((histogram.centers >= low) & (histogram.centers <= high))
    counts = histogram.counts[inside].astype(np.float64)
    if not counts.any():
        return float("inf")
    clipped = counts.copy()
    clipped[0] += histogram.counts[: inside[0]].sum()
    clipped[-1] += histogram.counts[inside[-1] + 1 :].sum()
    levels = np.floor(histogram.centers[inside] / affine.scale + 0.5)
    spread = np.zeros_like(counts)
    for level in np.unique(levels):
        here = (levels == level) & (counts > 0)
        spread[here] = counts[here].mean() if here.any() else 0
    p, q = clipped / clipped.sum(), np.maximum(spread / spread.sum(), 1e-12)
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([5, 300, 20_000]), st.booleans())
def test_running_sums_tell_the_divergence_of_every_range(seed, count, after_relu) -> None:
    values = np.random.default_rng(seed).standard_t(3, count)
    histogram = filled(np.maximum(values, 0) if after_relu else values)
    ranges = _candidates(histogram)[::17]
    expected = [divergence(histogram, low, high) for low, high in ranges.tolist()]
    np.testing.assert_allclose(_divergences(histogram, ranges), expected, atol=1e-9)


def test_nothing_but_zeros_has_a_range_in_every_way() -> None:
    assert {range_of(filled(np.zeros(10)), method) for method in METHODS} == {(0.0, 0.0)}


def test_the_predicted_error_is_the_real_one() -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    affine = Affine.of_range(-2.5, 3.0)
    real = float(np.mean((affine.dequantize(affine.quantize(values)) - values) ** 2))
    assert quantization_error(filled(values), -2.5, 3.0) == pytest.approx(real, rel=0.05)


def test_limits_of_a_clip_are_kept() -> None:
    affine = affine_of(filled(np.linspace(-3, 9, 100)), "minmax", (0.0, 6.0))
    assert affine.zero_point == 0
    assert affine.scale * 255 == pytest.approx(6.0)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(Refused, match="infinite or not a number"):
        filled(np.array([1.0, np.inf]))


def test_no_picture_at_all_is_refused(residual_net) -> None:
    graph = Graph.of(prepare(residual_net).model)
    with pytest.raises(Refused, match="no calibration picture reached"):
        observe(graph, place(graph).representatives, lambda: iter(()))


def test_observing_gives_the_tensors_own_ends(residual_net, feeds, run) -> None:
    graph = Graph.of(prepare(residual_net).model)
    found = observe(graph, ["x", "head_out"], feeds())
    inputs = np.concatenate([batch[0] for batch in feeds()()])
    outputs = run(graph.model(), inputs)
    assert (found["x"].low, found["x"].high) == (inputs.min(), inputs.max())
    assert found["head_out"].high == pytest.approx(outputs.max(), rel=1e-4)


def test_memory_does_not_grow_with_the_number_of_pictures(residual_net, feeds) -> None:
    # users-ask 29: a thousand pictures within 1.2 times the memory of a hundred.
    graph = Graph.of(prepare(residual_net).model)
    names = place(graph).representatives

    def peak(count: int) -> int:
        tracemalloc.start()
        observe(graph, names, feeds(count=count, size=10))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)
    assert peak(100) < 1.2 * peak(10)


def test_values_outside_the_limits_are_left_out_of_account() -> None:
    values = np.concatenate([np.linspace(-100, -6, 5000), np.linspace(0, 2, 5000)])
    histogram = filled(values)
    assert histogram.within(-200.0, 200.0) is histogram
    inner = histogram.within(-5.0, float("inf"))
    assert inner.low == -5.0
    assert inner.total < histogram.total
    for method in METHODS:
        low, high = range_of(inner, method)
        assert -5.0 <= low <= high <= 2.0
