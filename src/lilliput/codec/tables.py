"""Probabilities without floating point: integer logarithms, prior shapes, adaptive counts.

An encoder and a decoder on different machines must arrive at the same probabilities to the last
bit. Everything here is integer arithmetic on two small tables that are computed once; no entry of
them is so near a rounding boundary that another mathematics library could round it differently
(`tests/codec/test_tables.py` checks that, and their checksums).
"""

from __future__ import annotations

from functools import cache
from math import exp, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Small = NDArray[np.int16]
Counts = NDArray[np.float64]
"""Integers below 2**53, in the form that the range coder takes."""

STEPS = 16
"""Logarithms are in sixteenths of an octave."""
LOG_BITS = 14
CELLS = 64
"""Cells of a unit of z in the table of the logistic distribution."""
FARTHEST = 20
PRIOR = 1 << 12
"""Sum of the counts that a class begins with, nearly."""


@cache
def logarithms() -> Small:
    """round(16 log2(2n + 1)) for n < 2**14: of n and a half, in sixteenths, plus 16."""
    return np.array([round(STEPS * log2(2 * n + 1)) for n in range(1 << LOG_BITS)], np.int16)


@cache
def logistic() -> NDArray[np.int64]:
    """round(2**30 / (1 + exp(-j / 64))) for j from -1280 to 1280."""
    cells = range(-FARTHEST * CELLS, FARTHEST * CELLS + 1)
    return np.array([round(2**30 / (1 + exp(-j / CELLS))) for j in cells], np.int64)


def log_of(values: NDArray[Any], largest: int) -> Small:
    """Sixteenths of an octave of `values` (integers from 0 to `largest`), any shape."""
    shift = max(0, largest.bit_length() - LOG_BITS)
    found = logarithms().take(values >> shift if shift else values)
    found += np.int16(STEPS * (shift - 1))
    return found


def bell(size: int, scale: int, centre: int) -> Counts:
    """Counts of a discretised logistic distribution on the residues of `size` levels.

    Args:
        size: Levels; entry r stands for the values that are r modulo `size`.
        scale: Sixteenths of an octave of the mean magnitude.
        centre: Eighths by which the distribution lies above 0, from 0 to 7.
    """
    # The mean magnitude of a logistic of unit slope is 2 log 2: 7.54 sixteenths of an octave.
    slope = power(scale - 8)
    half = size // 2
    edges = np.arange(-half, size - half + 1, dtype=np.int64) * 16 - 8 - 2 * centre
    cells = (edges * (CELLS * 4096 // 8) + slope) // (2 * slope)
    cdf = logistic()[np.clip(cells, -FARTHEST * CELLS, FARTHEST * CELLS) + FARTHEST * CELLS]
    counts = (np.diff(cdf) * PRIOR >> 30) + 1
    return np.roll(counts, -half).astype(np.float64)


def power(sixteenths: int) -> int:
    """4096 times 2**(sixteenths / 16), rounded; at least 64."""
    whole, part = divmod(sixteenths + 12 * STEPS, STEPS)
    return max(64, (_fractions()[part] << max(whole, 0)) >> 16)


@cache
def _fractions() -> list[int]:
    return [round(2 ** (16 + part / STEPS)) for part in range(STEPS)]


class Table:
    """Adaptive counts of a number of symbols in each of some classes.

    Args:
        first: (classes, symbols) counts to begin with; all at least 1.
        weight: What one occurrence adds.
        limit: When the counts of a class exceed this sum they are halved, so that what is long
            past weighs less.
    """

    def __init__(self, first: Counts, *, weight: int, limit: int = 1 << 22) -> None:
        self.counts = np.ascontiguousarray(first)
        self.weight, self.limit = weight, limit
        self._sums = self.counts.sum(1)

    @classmethod
    def flat(cls, classes: int, symbols: int, *, limit: int = 1 << 22) -> Table:
        """Nothing known in advance."""
        return cls(np.full((classes, symbols), 4.0), weight=16, limit=limit)

    def learn(self, rows: NDArray[np.intp], sorted_symbols: Ints, sizes: NDArray[np.intp]) -> None:
        """Count what was seen: `sizes[n]` symbols in class `rows[n]`, then those of the next."""
        begins = np.repeat(rows * self.counts.shape[1], sizes)
        np.add.at(self.counts.reshape(-1), begins + sorted_symbols, float(self.weight))
        self._sums[rows] += self.weight * sizes
        full = rows[self._sums[rows] > self.limit]
        if full.size:
            self.counts[full] = self.counts[full] // 2 + 1
            self._sums[full] = self.counts[full].sum(1)

    def count(self, rows: Small, symbols: Ints) -> None:
        """As `learn`, of symbols in any order."""
        width = self.counts.shape[1]
        seen = np.bincount(rows.astype(np.intp) * width + symbols, minlength=self.counts.size)
        self.counts += self.weight * seen.reshape(-1, width)
        self._sums = self.counts.sum(1)
        full = np.flatnonzero(self._sums > self.limit)
        if full.size:
            self.counts[full] = self.counts[full] // 2 + 1
            self._sums[full] = self.counts[full].sum(1)

    def fade(self, most: int) -> None:
        """Halve the counts of each class until they sum to `most` or to a count of one each."""
        while (full := np.flatnonzero(self._sums > max(most, 2 * self.counts.shape[1]))).size:
            self.counts[full] = self.counts[full] // 2 + 1
            self._sums[full] = self.counts[full].sum(1)
