"""Integers of at most 256 levels: int8, uint8, 4 bits, indices into a codebook."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.bill import Ledger
from lilliput.codec.coder import Estimator, Stream
from lilliput.codec.context import Context, Pass, Shape
from lilliput.codec.phases import LEANINGS, Phase, likely_line, of_kernel, of_lines, of_version_2
from lilliput.codec.prediction import coefficient_table, predict
from lilliput.codec.sparsity import Sparsity, odds_table
from lilliput.codec.tables import Counts, Ints, Small, Table, bell

# Classes of size are half octaves. Where values are small it matters where between two integers
# the expected value lies, and such classes are split by that.
_SMALLEST, _FINE_BELOW, _LARGEST = -4, 4, 16
_PARTS = 4
_FIRST_COARSE = 1 + (_FINE_BELOW - _SMALLEST) * _PARTS
_ROWS = _FIRST_COARSE + _LARGEST - _FINE_BELOW
_WEIGHT = 32
_DENSE, _BY_SIZE, _BY_COUNTS, _WAYS = range(4)
_WITHOUT_LINES = 2
"""The last version of the format that knew neither lines nor the signs of neighbours."""
_SPARSE = 0.6
"""Below this share of numbers that are not zero, where they are is coded by itself."""
_SPARSE_LIMIT = 1 << 16
"""What is left of a pruned layer depends on its threshold: earlier layers are soon forgotten."""

_REMEMBERED = 1 << 10
"""What the values of earlier units may weigh: those of 64 occurrences."""


_PARTS_OF_ROWS = (32, 12)
"""Until that version, and since."""

Way = tuple[int, int]
"""How integers are coded, and how many columns are a line."""


@dataclass
class IntegerTables:
    """What integers of so many levels teach, over all of a file.

    `version` is that of the format: the first did not code places by counts, the second knew
    neither lines nor the signs of neighbours.
    """

    value: Table
    zero: Table
    live: Table
    place: Table
    coefficient: Table
    version: int

    @classmethod
    def new(cls, levels: int, version: int) -> IntegerTables:
        """Bell-shaped counts, by the size that is expected; flat ones for what is sparse."""
        return cls(
            value=Table(_bells(levels).copy(), weight=_WEIGHT),
            zero=Table.flat(_ROWS, 2),
            live=Table.flat(LEANINGS, levels, limit=_SPARSE_LIMIT),
            place=odds_table(),
            coefficient=coefficient_table(),
            version=version,
        )

    @property
    def levels(self) -> int:
        """Number of different values."""
        return len(self.live.counts[0])


@lru_cache(8)
def _bells(levels: int) -> Counts:
    rows = [np.full(levels, 4096 // levels + 1.0)]
    for half_octave in range(_SMALLEST, _LARGEST):
        parts = _PARTS if half_octave < _FINE_BELOW else 1
        rows += [bell(levels, 8 * half_octave + 4, 2 * part) for part in range(parts)]
    return np.array(rows)


def code_integers(
    stream: Stream,
    tables: IntegerTables,
    shape: Shape,
    kernel: tuple[int, ...],
    values: Ints | None,
) -> Ints:
    """Integers about 0, modulo the levels of the tables.

    Args:
        stream: Either direction.
        tables: Of so many levels; they learn.
        shape: (G, O, I, K).
        kernel: Sides of the kernel.
        values: (G, O, I, K) for an encoder; of absolute value up to `levels`.

    Returns:
        The values, as those of their residue class that are nearest to 0; same shape.
    """
    way, line = (_DENSE, 1) if values is None else _best(tables, shape, kernel, values)
    stream.book_as("context", 0)
    way = stream.number(way, _WAYS if tables.version > 1 else _WAYS - 1)
    if way == _BY_COUNTS and shape[3] == 1 and tables.version > _WITHOUT_LINES:
        line = stream.number(line - 1, shape[2]) + 1
    return _code(stream, tables, (way, line), shape, kernel, values)


def _code(
    stream: Stream,
    tables: IntegerTables,
    way: Way,
    shape: Shape,
    kernel: tuple[int, ...],
    values: Ints | None,
) -> Ints:
    if way[0] == _BY_COUNTS:
        return _code_by_counts(
            stream, tables, shape, _phases(tables, shape, kernel, way[1]), values
        )
    code = _code_sparse if way[0] == _BY_SIZE else _code_dense
    context = Context(shape, kernel, tables.levels)
    for where in context.passes():
        plane = None
        if values is not None:
            plane = values[:, where.rows, where.columns, where.plane].ravel()
        context.learn(where, code(stream, tables, context, where, plane))
    return context.values()


def _best(tables: IntegerTables, shape: Shape, kernel: tuple[int, ...], values: Ints) -> Way:
    """Sparse numbers are coded in the cheapest of two or three ways."""
    columns = shape[2]
    if np.count_nonzero(values) >= values.size * _SPARSE:
        return _DENSE, columns
    ways = [(_BY_SIZE, columns), (_BY_COUNTS, columns)]
    if shape[3] == 1:
        line = likely_line(np.sign(values).astype(np.int8).reshape(-1, columns))
        ways += [] if line is None else [(_BY_COUNTS, line)]
    costs = {}
    for way in ways:
        ledger = Ledger()
        _code(Estimator(ledger), copy.deepcopy(tables), way, shape, kernel, values)
        costs[way] = ledger.total
    return min(costs, key=lambda way: costs[way])


def _phases(tables: IntegerTables, shape: Shape, kernel: tuple[int, ...], line: int) -> list[Phase]:
    old = tables.version <= _WITHOUT_LINES
    if shape[3] == 1:
        return of_version_2(shape[2]) if old else of_lines(shape[2], line)
    phases = of_kernel(shape[2], kernel)
    return [replace(phase, leaning=0) for phase in phases] if old else phases


def _code_by_counts(
    stream: Stream,
    tables: IntegerTables,
    shape: Shape,
    phases: list[Phase],
    values: Ints | None,
) -> Ints:
    """Pass by pass which values are not zero, and then those values."""
    parts = _PARTS_OF_ROWS[tables.version > _WITHOUT_LINES]
    known = Sparsity(shape, phases, parts)
    tables.live.fade(_REMEMBERED)
    found = np.zeros(shape, np.int32)
    for where in known.passes():
        at = (slice(None), where.rows, where.columns, where.phase.plane)
        given = None if values is None else values[at].ravel()
        odds = known.odds(where)
        each = odds.classes.size // shape[0]
        stream.book_as("significance", each)
        live = None if given is None else (given != 0).astype(np.int32)
        places = np.flatnonzero(stream.code_each(live, odds.classes, tables.place))
        stream.book_as("values", each)
        symbols = None if given is None else given[places] % tables.levels
        coded = stream.code(symbols, known.leanings(where, places), tables.live, places)
        flat = np.zeros(odds.classes.size, np.int32)
        flat[places] = _nearest_zero(tables.levels).take(coded)
        known.learn(where, odds, flat)
        found[at] = flat.reshape(shape[0], -1, where.columns.size)
    return found


def _code_dense(
    stream: Stream, tables: IntegerTables, context: Context, where: Pass, values: Ints | None
) -> NDArray[np.float32]:
    """The difference from the expected value, by its expected size."""
    levels = tables.levels
    given = None if values is None else values.astype(np.float32)
    expected, smaller = predict(stream, tables.coefficient, context, where, given)
    classes = _classes(context, where, expected, smaller)
    middle: Small = np.full(1, levels, np.int16)
    if expected is not None:
        middle = (expected >> 3).clip(-levels, levels) + middle
    symbols = None if values is None else (values - middle) % levels
    stream.book_as("values", classes.size // context.shape[0])
    found = stream.code(symbols, classes, tables.value)
    return _nearest_zero(levels).take(found + middle)


def _code_sparse(
    stream: Stream, tables: IntegerTables, context: Context, where: Pass, values: Ints | None
) -> NDArray[np.float32]:
    """First which values are not zero, then those values."""
    levels = tables.levels
    classes = _classes(context, where, None, 0)
    each = classes.size // context.shape[0]
    stream.book_as("significance", each)
    live = None if values is None else (values != 0).astype(np.int32)
    places = np.flatnonzero(stream.code(live, classes, tables.zero))
    stream.book_as("values", each)
    symbols = None if values is None else values[places] % levels
    found = np.zeros(classes.size, np.int32)
    found[places] = stream.code(symbols, np.zeros(places.size, np.int16), tables.live, places)
    return _nearest_zero(levels).take(found)


def _classes(context: Context, where: Pass, expected: Small | None, smaller: int) -> Small:
    size = context.size(where)
    if size is None:
        return np.zeros(context.count(where), np.int16)
    half_octaves = ((size - np.int16(smaller)) >> 3).clip(_SMALLEST, _LARGEST - 1)
    coarse: Small = half_octaves + np.int16(_FIRST_COARSE - _FINE_BELOW)
    if int(half_octaves.min()) >= _FINE_BELOW:
        return coarse
    fine = (half_octaves - np.int16(_SMALLEST)) * np.int16(_PARTS) + np.int16(1)
    if expected is not None:
        fine += (expected & 7) >> 1
    return np.where(half_octaves < _FINE_BELOW, fine, coarse)


@lru_cache(8)
def _nearest_zero(levels: int) -> NDArray[np.float32]:
    """Of n from 0 to 3 levels: the number nearest to 0 that is n modulo levels."""
    half = levels // 2
    return ((np.arange(3 * levels) + half) % levels - half).astype(np.float32)
