"""Where the weights of a sparse tensor are, by how full their row, column and kernel were so far.

A pruned layer is not evenly sparse: whole rows (dead units) and columns (dead inputs, such as the
border of a picture) are empty. With one weight in a hundred left, magnitudes say nothing; counts
do. The odds of a place are those of the whole tensor, times how much more its row and its column
hold than they should, times the same of its kernel. Counts begin with half an occurrence, so that
nothing is sent about rows and columns, and an empty one soon costs next to nothing.

Weights beside one another are alike: where one is left, the next is more likely to be, and of the
same sign. `lilliput.codec.phases` says which neighbours of a place are known when its turn comes;
the odds are multiplied by how much more often than they said places with so many were not zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.coder import Places
from lilliput.codec.context import Shape, slices
from lilliput.codec.phases import NEARNESSES, TABLES, Columns, Phase
from lilliput.codec.tables import LOG_BITS, STEPS, Counts, Ints, Small, Table, logarithms, power

LOWEST, ROWS = -56, 72
"""Quarters of an octave of the odds: the first row of the table, and how many there are."""
_SURE = 64
"""Counts of the rarer outcome that a row begins with: four occurrences."""
_WORTH_A_TILE, _MOST_WITH_KERNEL = 64, 4
_WORTH_A_PART = 512
_COARSE = 10
KERNEL_SHARE = 8
"""Sixteenths of the deviation of a kernel that count."""

Big = NDArray[np.int64]


class Odds(NamedTuple):
    """What is expected of a pass.

    Attributes:
        classes: The row of the table for each place, flat.
        nearness: (G, rows, columns) which class of neighbours a place has, and `chances` how likely
            it was without them to be not zero; None where neighbours are not counted.
    """

    classes: Small
    nearness: Small | None = None
    chances: Big | None = None


class Pass(NamedTuple):
    """What is coded in one go: these columns of these rows, in the plane of the phase."""

    rows: slice
    columns: Columns
    phase: Phase


def odds_table() -> Table:
    """Counts of (zero, not zero) for each row of odds, begun as the odds say.

    There are `TABLES` of them, one below the other, of which files since version 3 use the first.
    """
    return Table(np.tile(_first_counts(), (TABLES, 1)), weight=16, limit=1 << 16)


@cache
def _chances() -> Big:
    """How likely each row's odds say that a place is not zero, in 65,536ths."""
    counts = _first_counts().astype(np.int64)
    chances: Big = (counts[:, 1] << 16) // counts.sum(1)
    return chances


@cache
def _first_counts() -> Counts:
    made = np.full((ROWS, 2), float(_SURE))
    for row in range(ROWS):
        quarter = row + LOWEST
        # In the middle of the quarter of an octave.
        more = power(abs(4 * quarter + 2)) * _SURE >> 12
        made[row, 0 if quarter < 0 else 1] = more
    return made


class Sparsity:
    """The known part of one unit, as counts of what is not zero, and its signs.

    Args:
        shape: (G, O, I, K).
        phases: In which order columns are coded if there is no kernel, else its places.
        parts: In how many parts at most the rows of a tensor without a kernel are coded.
    """

    def __init__(self, shape: Shape, phases: Sequence[Phase], parts: int) -> None:
        groups, rows, columns, places = shape
        self.shape, self.phases, self.parts = shape, phases, parts
        self._row = np.zeros((groups, rows), np.int64)
        self._column = np.zeros((groups, columns), np.int64)
        self._kernel = np.zeros((groups, rows, columns), np.int64)
        # The last column, in which nothing is, stands for what lies beyond the border.
        self._sign = np.zeros((groups, rows, columns + 1, places), np.int8)
        self._row_seen = np.zeros(rows, np.int64)
        self._column_seen = np.zeros(columns, np.int64)
        self._seen = 0
        self._near_found = np.zeros(NEARNESSES, np.int64)
        self._near_expected = np.zeros(NEARNESSES, np.int64)

    def passes(self) -> list[Pass]:
        """All passes in their order.

        With a kernel: tiles of the first plane, then the others. Without: some rows at a time, of
        these the columns phase by phase.
        """
        _, rows, columns, places = self.shape
        if places == 1:
            parts = slices(rows, min(self.parts, rows * columns // _WORTH_A_PART))
            return [Pass(row, phase.columns, phase) for row in parts for phase in self.phases]
        cuts = max(1, min(_MOST_WITH_KERNEL, isqrt(rows * columns // _WORTH_A_TILE)))
        every, first, *others = np.arange(columns), *self.phases
        tiles = [
            Pass(row, every[column], first)
            for row in slices(rows, cuts)
            for column in slices(columns, cuts)
        ]
        return tiles + [Pass(slice(0, rows), every, phase) for phase in others]

    def odds(self, where: Pass) -> Odds:
        """How likely each place of a pass is to be not zero, as a row of the table."""
        rows, columns, phase = where
        found = self._row.sum(1)
        odds = count_log(found) - count_log(self._seen - found)
        row = self._deviation(self._row[:, rows], self._row_seen[rows], found)
        column = self._deviation(self._column[:, columns], self._column_seen[columns], found)
        sixteenths: Small = (odds[:, None] + row)[:, :, None] + column[:, None, :]
        if phase.known:
            expected = 32 * phase.known * found // self._seen
            kernel = count_log(self._kernel) + np.int16(4 * STEPS)
            kernel -= count_log((expected + 15) >> 1)[:, None, None]
            sixteenths += (kernel * np.int16(KERNEL_SHARE)) >> 4
        if phase.table:
            beside = self._near(where) + np.int16(phase.table)
            return Odds((_rows(sixteenths) + beside * np.int16(ROWS)).ravel())
        if not phase.nearness:
            return Odds(_rows(sixteenths).ravel())
        nearness = self._near(where) + np.int16(phase.nearness)
        more = count_log(self._near_found) + np.int16(4 * STEPS)
        more -= count_log((32 * self._near_expected + (15 << 16)) >> 17)
        chances = _chances()[_rows(sixteenths)]
        return Odds(_rows(sixteenths + more[nearness]).ravel(), nearness, chances)

    def _near(self, where: Pass) -> Small:
        """How many neighbours of each place are not zero."""
        near: Small = np.abs(self._beside(where)).sum(-1, dtype=np.int16)
        return near

    def leanings(self, where: Pass, live: Places) -> Small:
        """Classes of the values at these places of a pass: which sign their neighbours have."""
        if not where.phase.leaning:
            return np.zeros(live.size, np.int16)
        sums = self._beside(where).sum(-1, dtype=np.int16).ravel()[live]
        classes: Small = np.where(sums, np.int16(where.phase.leaning) + (sums > 0), np.int16(0))
        return classes

    def _beside(self, where: Pass) -> NDArray[np.int8]:
        """(G, rows, columns, neighbours) signs."""
        part = self._sign[:, where.rows]
        if self.shape[3] == 1:
            return part[:, :, where.phase.beside, 0]
        return part[:, :, where.columns[:, None], where.phase.beside]

    def learn(self, where: Pass, odds: Odds, values: Ints) -> None:
        """Take in the numbers of a pass, flat, of which this was expected."""
        rows, columns, phase = where
        part = values.reshape(self.shape[0], -1, columns.size)
        live = part != 0
        self._row[:, rows] += live.sum(2)
        self._column[:, columns] += live.sum(1)
        self._sign[:, rows, columns, phase.plane] = np.sign(part)
        if self.shape[3] > 1:
            self._kernel[:, rows, columns] += live
        self._row_seen[rows] += columns.size
        self._column_seen[columns] += live.shape[1]
        self._seen += live[0].size
        if odds.nearness is not None and odds.chances is not None:
            which = odds.nearness.ravel()
            self._near_found += np.bincount(which[live.ravel()], minlength=NEARNESSES)
            # Sums of integers far below 2**53: exact, in whatever order.
            expected = np.bincount(which, odds.chances.ravel(), NEARNESSES)
            self._near_expected += expected.astype(np.int64)

    def _deviation(self, counts: Big, seen: Big, found: Big) -> Small:
        """Of rows (columns) from what they would hold if all were alike: half counts added."""
        expected = 32 * seen * found[:, None] // max(self._seen, 1)
        deviation = count_log(counts) + np.int16(4 * STEPS)
        deviation -= count_log((expected + 15) >> 1)
        return deviation


def _rows(sixteenths: Small) -> Small:
    """Rows of the table for odds in sixteenths of an octave."""
    rows: Small = ((sixteenths >> 2) - np.int16(LOWEST)).clip(0, ROWS - 1)
    return rows


def count_log(counts: Big) -> Small:
    """Sixteenths of an octave of counts (below 2**24) and a half, plus 16; small ones exactly."""
    if counts.size and int(counts.max()) < 1 << LOG_BITS:
        return logarithms().take(counts)
    large = logarithms().take(counts >> _COARSE) + np.int16(_COARSE * STEPS)
    found: Small = np.where(
        counts < 1 << LOG_BITS, logarithms().take(counts & ((1 << LOG_BITS) - 1)), large
    )
    return found
