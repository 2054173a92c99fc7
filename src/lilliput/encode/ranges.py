"""Which range of an activation the 256 levels should cover, from one pass in constant memory.

Histograms grow by doubling their bin width, so that their size depends neither on the number of
pictures nor on what the first of them held. Sources: percentile and entropy ranges: Migacz, GTC
2017, "8-bit Inference with TensorRT"; range by least squares: Nagel et al., arXiv 2106.08295,
section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lilliput.data.dataset import Array
from lilliput.encode.execute import Execution, Feeds
from lilliput.encode.integers import Affine
from lilliput.errors import Refused
from lilliput.graph import Graph

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")

BINS = 8192
SAMPLED = 1 << 18
PERCENTILE = 99.999
LEVELS = 256
UNSEEN = 1e-12
"""Share of a bin that the quantized distribution knows nothing of."""


class Histogram:
    """Minimum, maximum and a histogram of `BINS` equal bins around 0 that widens as needed.

    Minimum and maximum are exact; of a batch with more than `SAMPLED` values an evenly spaced
    sample is counted. Zeros are counted apart: they are always a level, and after a ReLU they
    would drown every other bin.
    """

    def __init__(self) -> None:
        self.low, self.high = float("inf"), float("-inf")
        self.zeros = 0
        self.counts = np.zeros(BINS, np.int64)
        self.reach = 0.0

    def add(self, values: Array) -> None:
        """Count a batch of any shape.

        Raises:
            Refused: the values are not finite.
        """
        flat = np.asarray(values, np.float32).reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite([low, high]).all():
            raise Refused(
                "an activation is infinite or not a number on the calibration pictures",
                hint="check the preprocessing, and that the float file gives finite outputs",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(max(-low, high))
        if flat.size > SAMPLED:
            flat = flat[:: -(-flat.size // SAMPLED)]
        counted = flat[flat != 0]
        self.zeros += flat.size - counted.size
        if counted.size and self.reach > 0:
            scaled = (counted + np.float32(self.reach)) * np.float32(BINS / (2 * self.reach))
            bins = np.clip(scaled.astype(np.int32), 0, BINS - 1)
            self.counts += np.bincount(bins, minlength=BINS)

    def _grow(self, needed: float) -> None:
        if needed <= self.reach:
            return
        if self.reach == 0.0:
            # A power of two, so that growing later meets the same grid whatever came first.
            self.reach = float(2.0 ** np.ceil(np.log2(max(needed, 1e-30))))
            return
        while self.reach < needed:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.zeros(BINS, np.int64)
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = merged
            self.reach *= 2.0

    def within(self, low: float, high: float) -> Histogram:
        """The same tensor with what lies outside [low, high] left out of account."""
        if low <= self.low and high >= self.high:
            return self
        inner = Histogram()
        inner.low, inner.high = max(self.low, low), min(self.high, high)
        inner.reach, inner.zeros = self.reach, self.zeros
        inner.counts = np.where((self.centers >= low) & (self.centers <= high), self.counts, 0)
        return inner

    @property
    def centers(self) -> NDArray[np.float64]:
        """(BINS,) the middle of each bin."""
        middles = (np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach
        return np.asarray(middles, np.float64)

    @property
    def total(self) -> int:
        return int(self.counts.sum()) + self.zeros


def observe(
    graph: Graph, tensors: Iterable[str], feeds: Feeds, *, threads: int = 1
) -> dict[str, Histogram]:
    """One pass over the calibration batches: {tensor: histogram of its float values}."""
    names = list(tensors)
    execution = Execution(graph.model(), names, threads=threads)
    histograms = {name: Histogram() for name in names}
    for values in execution.over(feeds):
        for name in names:
            histograms[name].add(values[name])
    empty = [name for name, histogram in histograms.items() if not histogram.total]
    if empty:
        raise Refused(
            f"no calibration picture reached {empty[0]!r}",
            hint="give pictures to calibrate with, or lower `calibration_images`",
        )
    return histograms


def range_of(histogram: Histogram, method: Method) -> tuple[float, float]:
    """(low, high) that the levels should cover; inside the observed minimum and maximum."""
    finders = {
        "minmax": _minmax,
        "percentile": _percentile,
        "entropy": _entropy,
        "mse": _least_squares,
    }
    low, high = finders[method](histogram)
    lowest, highest = min(histogram.low, 0.0), max(histogram.high, 0.0)
    return min(max(low, lowest), 0.0), max(min(high, highest), 0.0)


def affine_of(
    histogram: Histogram,
    method: Method,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> Affine:
    """The affine map of a tensor; values outside `limits` make no difference to what follows."""
    low, high = range_of(histogram.within(*limits), method)
    return Affine.of_range(low, high)


def quantization_error(histogram: Histogram, low: float, high: float) -> float:
    """Mean squared error of the tensor's values under the affine map of [low, high]."""
    affine = Affine.of_range(low, high)
    centers = histogram.centers
    steps = np.clip(np.rint(centers / affine.scale) + affine.zero_point, 0, LEVELS - 1)
    gaps = (steps - affine.zero_point) * affine.scale - centers
    # Inside a level a value is spread evenly: a bin narrower than a level needs no more than
    # its middle, and one wider carries the level's own variance.
    width = min(2 * histogram.reach / BINS, affine.scale)
    squares = gaps**2 + width**2 / 12.0
    return float((histogram.counts * squares).sum() / max(histogram.total, 1))


def _minmax(histogram: Histogram) -> tuple[float, float]:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram) -> tuple[float, float]:
    share = (100.0 - PERCENTILE) / 100.0 * histogram.total
    filled = histogram.counts.cumsum()
    width = 2 * histogram.reach / BINS
    first = int(np.searchsorted(filled, share, side="right"))
    last = int(np.searchsorted(filled, filled[-1] - share, side="left"))
    low = -histogram.reach + min(first, BINS - 1) * width
    high = -histogram.reach + (min(last, BINS - 1) + 1) * width
    return min(low, 0.0), max(high, 0.0)


def _candidates(histogram: Histogram) -> NDArray[np.float64]:
    """(n, 2) ranges shrunk from the full one: both sides by the same share, and each alone."""
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    shares = np.linspace(1.0, 0.2, 81)
    both = np.stack([low * shares, high * shares], axis=1)
    if not low < 0 < high:
        return both
    lows, highs = both.copy(), both.copy()
    lows[:, 1], highs[:, 0] = high, low
    return np.stack([both, lows, highs], axis=1).reshape(-1, 2)


def _least_squares(histogram: Histogram) -> tuple[float, float]:
    ranges = map(tuple, _candidates(histogram).tolist())
    return min(ranges, key=lambda r: quantization_error(histogram, *r))


def _entropy(histogram: Histogram) -> tuple[float, float]:
    ranges = _candidates(histogram)
    low, high = ranges[np.argmin(_divergences(histogram, ranges))].tolist()
    return low, high


def _divergences(histogram: Histogram, ranges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) KL divergence, in nats, of the clipped, then quantized distribution from the observed.

    From running sums over the bins, so that a range costs a look at its levels. Rounded to what
    such sums can tell: ranges that are equally good are to be equal.
    Differs: Migacz clips symmetric ranges of magnitudes; ours are asymmetric, zeros are left out.
    """
    centers, counts = histogram.centers, histogram.counts.astype(np.float64)
    mass, filled, logs = map(_running, (counts, counts > 0, _times_log(counts)))
    found = np.full(len(ranges), np.inf)
    first = np.searchsorted(centers, ranges[:, 0])
    end = np.searchsorted(centers, ranges[:, 1], side="right")
    told = mass[end] > mass[first]
    first, end, total = first[told], end[told], mass[-1]
    bounds = np.clip(_level_bounds(centers, ranges[told]), first[:, None], end[:, None])
    of_level, bins = np.diff(mass[bounds]), np.diff(filled[bounds])
    inside = (mass[end] - mass[first])[:, None]
    share = np.log(np.where(of_level > 0, of_level / np.maximum(bins, 1) / inside, 1.0))
    sums = logs[end] - logs[first] - (of_level * share).sum(1)
    # The reference keeps the outliers, gathered in the outermost bins that are still covered.
    below, above, alone = mass[first], total - mass[end], first == end - 1
    for edge, outliers in (
        (first, np.where(alone, below + above, below)),
        (end - 1, np.where(alone, 0.0, above)),
    ):
        seen = counts[edge]
        level = (bounds <= edge[:, None]).sum(1, keepdims=True) - 1
        known = np.take_along_axis(share, level, axis=1)[:, 0]
        sums += _times_log(seen + outliers) - _times_log(seen)
        sums -= outliers * np.where(seen > 0, known, np.log(UNSEEN))
    found[told] = np.round(sums / total - np.log(max(total, 1.0)), 12)
    return found


def _level_bounds(centers: NDArray[np.float64], ranges: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n, LEVELS + 1) the bin that each level begins with, and the end of the last one."""
    maps = [Affine.of_range(low, high) for low, high in ranges.tolist()]
    scales = np.array([each.scale for each in maps]).reshape(-1, 1)
    zeros = np.array([each.zero_point for each in maps]).reshape(-1, 1)
    inner = np.searchsorted(centers, (np.arange(1, LEVELS) - 0.5 - zeros) * scales)
    return np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(centers))))


def _running(values: NDArray[Any]) -> NDArray[np.float64]:
    """(n + 1,) sums of the values before each place."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _times_log(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """n log n of whole numbers."""
    return counts * np.log(np.maximum(counts, 1.0))
