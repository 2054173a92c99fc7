"""A few values in the place of many: k-means on a line, and codebooks that cost few bits.

On a line a cluster is a stretch of the sorted values, so that a round of Lloyd's takes k binary
searches and differences of running sums, however many values there are.

Sources: Han, Mao, Dally, "Deep Compression", ICLR 2016, section 3.1 (k-means of weights), 3.2
(initialisation); Arthur and Vassilvitskii, "k-means++", SODA 2007, section 2.2; Chou, Lookabaugh,
Gray, "Entropy-constrained vector quantization", IEEE TASSP 37 (1989), section III; importance of
each weight: Choi, El-Khamy, Lee, "Towards the limit of network quantization", ICLR 2017, section 3.
Differs: a cluster that runs empty is begun anew at the value with the largest error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Start = Literal["linear", "density", "random", "kmeans++"]
Economy = Annotated[
    float,
    Field(
        ge=0,
        description="squared error, as a share of the mean squared weight, that one bit may cost",
    ),
]

ROUNDS = 300
TINY = 1e-12
"""Importance of a weight that none was measured for, as a share of the mean."""


@dataclass(frozen=True)
class Codebook:
    """`levels` (k,) and the number of its level for each value (n,). `history` is what each round
    minimized, before it: the distortion, and for economical ones the price of the bits too.
    """

    levels: Floats
    codes: Codes
    history: tuple[float, ...] = ()

    @property
    def decoded(self) -> Floats:
        """(n,) the level of each value."""
        return self.levels[self.codes]


def kmeans(
    values: NDArray[np.floating],
    count: int,
    *,
    start: Start = "linear",
    importance: NDArray[np.floating] | None = None,
    rng: np.random.Generator | None = None,
) -> Codebook:
    """At most `count` levels, ascending, for the values; Lloyd's until no value changes sides.

    Where there are no more different values than levels the error is zero.

    Args:
        values: (n,), n > 0, any order.
        count: Number of levels, at least 1.
        start: See `initial`.
        importance: (n,) factor of each squared error, at least 0.
        rng: For "random" and "kmeans++".
    """
    line = _Line(values, importance)
    different = np.unique(line.values)
    if len(different) <= count:
        return line.book(different, ())
    levels, bounds, history = initial(line.values, count, start, rng), None, []
    for _ in range(ROUNDS):
        now = line.bounds(levels)
        history.append(line.error(levels, now))
        empty = np.diff(now) == 0
        if bounds is not None and not empty.any() and np.array_equal(now, bounds):
            break
        bounds = now
        levels = np.sort(np.where(empty, line.worst(levels, now, empty), line.means(levels, now)))
    return line.book(levels, tuple(history))


def initial(
    values: Floats, count: int, start: Start, rng: np.random.Generator | None = None
) -> Floats:
    """`count` first levels, ascending, for ascending values.

    "linear": even steps from the least to the largest, which does not forget the few large
    weights. "density": even steps of the cumulative distribution. "random": values by lot.
    "kmeans++": values by lot, those far from earlier ones more likely.
    """
    if start == "linear":
        return np.linspace(values[0], values[-1], count)
    if start == "density":
        return np.asarray(np.quantile(values, (np.arange(count) + 0.5) / count))
    rng = rng or np.random.default_rng(0)
    if start == "random":
        return np.sort(rng.choice(values, count, replace=False))
    chosen = [float(rng.choice(values))]
    gaps = np.square(values - chosen[0])
    while len(chosen) < count and gaps.any():
        chosen.append(float(rng.choice(values, p=gaps / gaps.sum())))
        gaps = np.minimum(gaps, np.square(values - chosen[-1]))
    return np.sort(np.asarray(chosen))


class _Line:
    """Sorted values with running sums of importance, importance * value, importance * value²."""

    def __init__(
        self, values: NDArray[np.floating], importance: NDArray[np.floating] | None
    ) -> None:
        flat = np.asarray(values, np.float64).ravel()
        self.order = np.argsort(flat, kind="stable")
        self.values = flat[self.order]
        self.weights = weights_of(flat, importance)[self.order]
        # About the mean, or the differences of large sums would drown small distortions.
        self.middle = float(self.values.mean())
        centred = self.values - self.middle
        moments = self.weights * np.stack([np.ones_like(centred), centred, centred**2])
        self.sums = np.concatenate([np.zeros((3, 1)), np.cumsum(moments, 1)], 1)

    def bounds(self, levels: Floats) -> Codes:
        """(k + 1,) where each level's stretch begins, and the end."""
        inner = np.searchsorted(self.values, (levels[1:] + levels[:-1]) / 2)
        return np.concatenate([[0], inner, [len(self.values)]])

    def means(self, levels: Floats, bounds: Codes) -> Floats:
        weight, first, _ = np.diff(self.sums[:, bounds], axis=1)
        mean = first / np.where(weight > 0, weight, 1.0) + self.middle
        return np.where(weight > 0, mean, levels)

    def error(self, levels: Floats, bounds: Codes) -> float:
        weight, first, second = np.diff(self.sums[:, bounds], axis=1)
        at = levels - self.middle
        return float(np.maximum(second - 2 * at * first + at**2 * weight, 0.0).sum())

    def worst(self, levels: Floats, bounds: Codes, empty: NDArray[np.bool_]) -> Floats:
        """Levels of which the empty ones lie on the values that are served worst."""
        count = int(empty.sum())
        if not count:
            return levels
        errors = self.weights * np.square(self.values - levels[self._codes(bounds)])
        moved = levels.copy()
        moved[empty] = self.values[np.argpartition(errors, -count)[-count:]]
        return moved

    def book(self, levels: Floats, history: tuple[float, ...]) -> Codebook:
        """The codebook in the values' own order, without levels that nobody uses."""
        ranks = self._codes(self.bounds(levels))
        used, ranks = np.unique(ranks, return_inverse=True)
        codes = np.empty(len(ranks), np.int64)
        codes[self.order] = ranks
        return Codebook(levels[used], codes, history)

    def _codes(self, bounds: Codes) -> Codes:
        return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))


def weights_of(values: Floats, importance: NDArray[np.floating] | None) -> Floats:
    """(n,) positive importance of each value; 1 where none is given."""
    if importance is None:
        return np.ones(len(values))
    flat = np.asarray(importance, np.float64).ravel()
    mean = float(flat.mean())
    return flat + mean * TINY if mean > 0 else np.ones(len(values))


def economize(
    values: NDArray[np.floating],
    levels: Floats,
    price: float,
    *,
    importance: NDArray[np.floating] | None = None,
    elsewhere: NDArray[np.integer] | None = None,
    moving: NDArray[np.bool_] | None = None,
) -> Codebook:
    """Each value goes where error and bits together cost least; rare levels die out.

    Minimized is Σ importance (value - level)² + price * bits, the bits being those of an ideal
    coder that knows how often each level is used. It never rises from round to round.

    Args:
        values: (n,).
        levels: (k,) to begin with; the nearest one counts first.
        price: Squared error that one bit may cost.
        importance: (n,) factor of each squared error.
        elsewhere: (k,) how often each level is used besides: by weights that must stay at zero.
        moving: (k,) whether a level moves to the mean of its members; all do, if not given.
    """
    flat = np.asarray(values, np.float64).ravel()
    weights = weights_of(flat, importance)
    others = np.zeros(len(levels), np.int64) if elsewhere is None else np.asarray(elsewhere)
    free = np.ones(len(levels), bool) if moving is None else moving
    codes = cheapest_codes(flat, levels, np.zeros(len(levels)), weights)
    history: list[float] = []
    for _ in range(ROUNDS):
        counts = np.bincount(codes, minlength=len(levels)) + others
        tolls = np.where(counts > 0, price, np.inf) * level_bits(counts)
        error = float(weights @ np.square(flat - levels[codes]))
        paid = counts > 0
        history.append(error + float(counts[paid] @ tolls[paid]))
        if len(history) > 1 and history[-1] >= history[-2] * (1 - 1e-6):
            break
        codes = cheapest_codes(flat, levels, tolls, weights)
        mass = np.bincount(codes, weights, len(levels))
        sums = np.bincount(codes, weights * flat, len(levels))
        levels = np.where(free & (mass > 0), sums / np.where(mass > 0, mass, 1.0), levels)
    used, codes = np.unique(codes, return_inverse=True)
    return Codebook(levels[used], codes.astype(np.int64), tuple(history))


def level_bits(counts: NDArray[np.integer]) -> Floats:
    """(k,) bits of each level under the frequencies; infinite for one that is not used."""
    shares = counts / max(int(counts.sum()), 1)
    with np.errstate(divide="ignore"):
        return -np.log2(shares)


def cheapest_codes(values: Floats, levels: Floats, tolls: Floats, weights: Floats) -> Codes:
    """(n,) argmin over levels of weight * (value - level)² + toll; the first of equals."""
    best = np.full(len(values), np.inf)
    codes = np.zeros(len(values), np.int64)
    for number in np.flatnonzero(np.isfinite(tolls)):
        cost = weights * np.square(values - levels[number]) + tolls[number]
        better = cost < best
        best[better], codes[better] = cost[better], number
    return codes


def entropy(codes: NDArray[np.integer]) -> float:
    """Bits a symbol of an ideal coder without contexts.

    >>> entropy(np.array([0, 1, 0, 1]))
    1.0
    """
    counts = np.unique(codes, return_counts=True)[1]
    return float(counts @ level_bits(counts)) / max(len(codes), 1)


def sharing_ratio(count: int, values: int, bits: int = 32) -> float:
    """n b / (n log2 k + k b): what sharing alone saves of n weights of b bits, with k values.

    Source: Han, Mao, Dally, ICLR 2016, section 3, equation 1.

    >>> sharing_ratio(16, 4)
    3.2
    """
    return count * bits / (count * float(np.log2(values)) + values * bits)
