"""Where the weights of a sparse tensor are, by how full their row, column and kernel were so far.

A pruned layer is not evenly sparse: whole rows (dead units) and columns (dead inputs, such as the
border of a picture) are empty. With one weight in a hundred left, magnitudes say nothing; counts
do. The odds of a place are those of the whole tensor, times how much more its row and its column
hold than they should, times the same of its kernel. Counts begin with half an occurrence, so that
nothing is sent about rows and columns, and an empty one soon costs next to nothing.
"""

from __future__ import annotations

from functools import cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.coder import Stream
from lilliput.codec.context import Pass, Shape, planes, slices
from lilliput.codec.tables import LOG_BITS, STEPS, Counts, Small, Table, logarithms, power

LOWEST, ROWS = -56, 72
"""Quarters of an octave of the odds: the first row of the table, and how many there are."""
_SURE = 64
"""Counts of the rarer outcome that a row begins with: four occurrences."""
_WORTH_A_TILE, _MOST_WITH_KERNEL = 64, 4
_WORTH_A_PART, _MOST_PARTS = 512, 32
_STRIDE = 16
_PHASES = {n: far for far in (16, 8, 4, 2, 1) for n in range(16) if (n or 16) & -(n or 16) == far}
"""In which order the columns of sixteen come, and how far their known neighbours are then."""
_NEAR = {2: 1, 1: 4}
"""Distances at which neighbours count, and which of the tables is theirs if both are zero."""
_TABLES = 7
_COARSE = 10
KERNEL_SHARE = 8
"""Sixteenths of the deviation of a kernel that count."""

Big = NDArray[np.int64]


def odds_table() -> Table:
    """Counts of (zero, not zero) for each row of odds, begun as the odds say.

    There are seven tables, one below the other: without neighbours, and for 0, 1 or 2 of two
    neighbours that are not zero at a distance of two, and of one.
    """
    return Table(np.tile(_first_counts(), (_TABLES, 1)), weight=16, limit=1 << 16)


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
    """The known part of one unit, as counts of what is not zero.

    Args:
        shape: (G, O, I, K).
        kernel: The sides of the kernel, whose product is K.
    """

    def __init__(self, shape: Shape, kernel: tuple[int, ...]) -> None:
        groups, rows, columns, _ = shape
        self.shape, self.kernel = shape, kernel
        self._row = np.zeros((groups, rows), np.int64)
        self._column = np.zeros((groups, columns), np.int64)
        self._kernel = np.zeros((groups, rows, columns), np.int64)
        # A margin, in which nothing is, for what lies beyond the last column.
        self._live = np.zeros((groups, rows, columns + 2 * _STRIDE), np.int16)
        self._row_seen = np.zeros(rows, np.int64)
        self._column_seen = np.zeros(columns, np.int64)
        self._seen = 0

    def passes(self) -> list[Pass]:
        """All passes in their order.

        With a kernel: tiles of the first plane, then the others. Without: some rows at a time, of
        these every sixteenth column, then those in the middle between known ones, and so on.
        """
        _, rows, columns, places = self.shape
        if places == 1:
            parts = slices(rows, min(_MOST_PARTS, rows * columns // _WORTH_A_PART))
            phases = [p for p in _PHASES if p < columns]
            return [Pass(row, slice(p, columns, _STRIDE), 0, 0) for row in parts for p in phases]
        cuts = max(1, min(_MOST_WITH_KERNEL, isqrt(rows * columns // _WORTH_A_TILE)))
        first, *others = planes(self.kernel)
        tiles = [
            Pass(row, column, first, 0)
            for row in slices(rows, cuts)
            for column in slices(columns, cuts)
        ]
        whole = slice(0, rows), slice(0, columns)
        return tiles + [Pass(*whole, plane, step) for step, plane in enumerate(others, 1)]

    def classes(self, where: Pass) -> Small:
        """The row of the table for each place of a pass, flat."""
        found = self._row.sum(1)
        odds = count_log(found) - count_log(self._seen - found)
        row = self._deviation(self._row, self._row_seen, found, where.rows)
        column = self._deviation(self._column, self._column_seen, found, where.columns)
        sixteenths = (odds[:, None] + row)[:, :, None] + column[:, None, :]
        if where.step:
            expected = 32 * where.step * found // self._seen
            kernel = count_log(self._kernel) + np.int16(4 * STEPS)
            kernel -= count_log((expected + 15) >> 1)[:, None, None]
            sixteenths += (kernel * np.int16(KERNEL_SHARE)) >> 4
        classes: Small = ((sixteenths >> 2) - np.int16(LOWEST)).clip(0, ROWS - 1)
        if self.shape[3] == 1:
            classes += self._beside(where)
        return classes.ravel()

    def _beside(self, where: Pass) -> Small:
        """First row of the table for what lies left and right, where that is known and near."""
        first = where.columns.start
        far = _PHASES[first]
        if far not in _NEAR:
            return np.zeros(1, np.int16)
        row = self._live[:, where.rows]
        count = len(range(*where.columns.indices(self.shape[2])))
        sides = [
            row[:, :, at : at + _STRIDE * count : _STRIDE] for at in (first - far, first + far)
        ]
        table = sides[0] + sides[1] + np.int16(_NEAR[far])
        return table * np.int16(ROWS)

    def learn(self, where: Pass, live: NDArray[np.bool_]) -> None:
        """Take in which places of a pass are not zero, flat."""
        columns = len(range(*where.columns.indices(self.shape[2])))
        part = live.reshape(self.shape[0], -1, columns)
        rows = part.shape[1]
        self._row[:, where.rows] += part.sum(2)
        self._column[:, where.columns] += part.sum(1)
        if self.shape[3] > 1:
            self._kernel[:, where.rows, where.columns] += part
        else:
            self._live[:, where.rows, where.columns] = part
        self._row_seen[where.rows] += columns
        self._column_seen[where.columns] += rows
        self._seen += rows * columns

    def _deviation(self, counts: Big, seen: Big, found: Big, part: slice) -> Small:
        """Of rows (columns) from what they would hold if all were alike: half counts added."""
        expected = 32 * seen[part] * found[:, None] // max(self._seen, 1)
        deviation = count_log(counts[:, part]) + np.int16(4 * STEPS)
        deviation -= count_log((expected + 15) >> 1)
        return deviation


def count_log(counts: Big) -> Small:
    """Sixteenths of an octave of counts (below 2**24) and a half, plus 16; small ones exactly."""
    large = logarithms().take(counts >> _COARSE) + np.int16(_COARSE * STEPS)
    found: Small = np.where(
        counts < 1 << LOG_BITS, logarithms().take(counts & ((1 << LOG_BITS) - 1)), large
    )
    return found


def code_positions(
    stream: Stream, table: Table, known: Sparsity, where: Pass, live: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Which places of a pass are not zero, flat."""
    classes = known.classes(where)
    stream.book_as("significance", classes.size // known.shape[0])
    told = None if live is None else live.astype(np.int32)
    found = stream.code_each(told, classes, table).astype(np.bool_)
    known.learn(where, found)
    return found
