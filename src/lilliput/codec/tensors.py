"""How each unit is coded: the ways there are, and the choice between them by trying."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

from lilliput.codec.bill import Ledger
from lilliput.codec.coder import Estimator, Stream
from lilliput.codec.floats import SINGLE, Format, Tables, Words, code_floats
from lilliput.codec.grids import LARGEST, code_steps, corrections_table, integers_of
from lilliput.codec.integers import IntegerTables, code_integers
from lilliput.codec.payload import (
    FLOATS,
    LEVELS,
    SIGNED,
    Unit,
    contents,
    has_few_values,
    load,
    store,
)
from lilliput.codec.plain import pack_plain, quick_look, unpack_plain
from lilliput.codec.tables import Ints, Table
from lilliput.codec.wire import BITS
from lilliput.errors import Refused

DIRECT, CODEBOOK, BYTES, GRIDS = range(4)
WITHOUT_GRIDS = 2
"""The last version of the format that knew no steps of rows."""

_WIDE = 1 << 20


@dataclass
class Learned:
    """All adaptive tables of a file. They begin empty and are made when first needed.

    `version` is that of the format.
    """

    version: int
    integers: dict[int, IntegerTables] = field(default_factory=dict)
    floats: dict[tuple[Format, bool], Tables] = field(default_factory=dict)
    corrections: Table = field(default_factory=corrections_table)

    def of_levels(self, levels: int) -> IntegerTables:
        """For integers of so many levels."""
        if levels not in self.integers:
            self.integers[levels] = IntegerTables.new(levels, self.version)
        return self.integers[levels]

    def of_format(self, form: Format, *, codebook: bool = False) -> Tables:
        """For numbers of a format; codebooks are unlike the weights they stand for."""
        key = form, codebook
        if key not in self.floats:
            self.floats[key] = Tables.new(form)
        return self.floats[key]


def code_unit(stream: Stream, learned: Learned, unit: Unit, whole: memoryview) -> None:
    """Code a unit from, or into, the whole file."""
    way = 0 if stream.decoding else _best(learned, unit, whole)
    way = stream.number(way, 4 if learned.version > WITHOUT_GRIDS else 3)
    _code(stream, learned, unit, whole, way)


def _best(learned: Learned, unit: Unit, whole: memoryview) -> int:
    if not _restores(unit, whole):
        return BYTES
    raw = b"".join(contents(unit, whole))
    quick = 8 * quick_look(raw)
    ways = [DIRECT]
    if unit.data_type in FLOATS and all(has_few_values(slot, whole) for slot in unit.slots):
        ways.append(CODEBOOK)
    if unit.data_type in FLOATS and _on_grids(unit, whole) is not None:
        ways.append(GRIDS)
    if len(ways) == 1 and quick > 4 * len(raw):
        return DIRECT
    costs = {way: _cost(learned, unit, whole, way) for way in ways}
    best = min(ways, key=lambda way: costs[way])
    # Our own coding learns for the tensors to come, LZMA does not: it must be clearly better.
    if quick < costs[best] and _cost(learned, unit, whole, BYTES) < 0.9 * costs[best]:
        return BYTES
    return best


def _cost(learned: Learned, unit: Unit, whole: memoryview, way: int) -> float:
    """Bits that this way would take."""
    ledger = Ledger()
    _code(Estimator(ledger), copy.deepcopy(learned), unit, whole, way)
    return ledger.total


def _code(stream: Stream, learned: Learned, unit: Unit, whole: memoryview, way: int) -> None:
    if way == BYTES:
        _code_bytes(stream, unit, whole)
        return
    numbers = None if stream.decoding else load(unit, whole)
    if way == CODEBOOK:
        numbers = _code_shared(stream, learned, unit, numbers)
    elif way == GRIDS:
        numbers = _code_on_grids(stream, learned, unit, numbers)
    elif unit.data_type in FLOATS:
        form, _ = FLOATS[unit.data_type]
        numbers = code_floats(
            stream, learned.of_format(form), form, unit.shape, unit.kernel, numbers
        )
    else:
        numbers = _code_levels(stream, learned, unit, numbers)
    if stream.decoding:
        store(unit, numbers, whole)


def _code_levels(stream: Stream, learned: Learned, unit: Unit, values: Ints | None) -> Ints:
    """Integers about a middle: 0 where they are signed, the most frequent value where not."""
    middle = 0
    if values is not None and (unit.data_type not in SIGNED or values.min() == values.max()):
        middle = int(np.bincount(values.ravel() + 128).argmax()) - 128
    middle = stream.number(middle + 128, 3 * LEVELS // 2) - 128
    return middle + _code_about_zero(
        stream, learned, unit, None if values is None else values - middle
    )


def _code_about_zero(stream: Stream, learned: Learned, unit: Unit, values: Ints | None) -> Ints:
    """Integers by the tables of as many levels as the largest of them calls for."""
    farthest = 0 if values is None else int(np.abs(values).max())
    farthest = stream.number(min(farthest, LEVELS // 2), LEVELS // 2 + 1)
    if not farthest:
        return np.zeros(unit.shape, np.int32)
    table = learned.of_levels(min(LEVELS, 2 * farthest + 1))
    return code_integers(stream, table, unit.shape, unit.kernel, values)


def _code_shared(stream: Stream, learned: Learned, unit: Unit, words: Words | None) -> Words:
    """A codebook for each tensor, then indices into it, counted from the entry nearest zero."""
    form, _ = FLOATS[unit.data_type]
    books, indices = ([], None) if words is None else _books(words, form)
    sizes = np.array([book.size - 1 for book in books], np.int32)
    sizes = stream.uniform(sizes, len(unit.slots), LEVELS) + 1
    if (sizes > unit.slots[0].count).any():
        raise Refused("the packed weights are damaged")
    joined = None if words is None else np.concatenate(books).reshape(1, 1, -1, 1)
    tables = learned.of_format(form, codebook=True)
    with stream.all_booked_as("codebook"):
        joined = code_floats(stream, tables, form, (1, 1, int(sizes.sum()), 1), (1,), joined)
    books = np.split(joined.ravel(), np.cumsum(sizes)[:-1])
    middles = np.array([_nearest_zero(book, form) for book in books])[:, None, None, None]
    centred = None if indices is None else indices - middles
    found = _code_about_zero(stream, learned, unit, centred)
    found = (found + middles) % LEVELS
    if (found >= sizes[:, None, None, None]).any():
        raise Refused("the packed weights are damaged")
    return np.stack([book[index] for book, index in zip(books, found, strict=True)])


def _on_grids(unit: Unit, whole: memoryview) -> tuple[Words, Ints] | None:
    """Steps and integers of a unit of single precision whose rows have few values each."""
    form, _ = FLOATS[unit.data_type]
    return integers_of(load(unit, whole)) if form == SINGLE else None


def _code_on_grids(stream: Stream, learned: Learned, unit: Unit, words: Words | None) -> Words:
    """Integers, then a step for each row."""
    steps, integers = (None, None) if words is None else integers_of(words) or (None, None)
    integers = _code_about_zero(stream, learned, unit, integers)
    if np.abs(integers).max() > LARGEST or unit.data_type not in FLOATS:
        raise Refused("the packed weights are damaged")
    tables = learned.of_format(SINGLE, codebook=True)
    with stream.all_booked_as("codebook"):
        return code_steps(stream, tables, learned.corrections, integers, steps, words)


def _books(words: Words, form: Format) -> tuple[list[Words], Ints]:
    books, indices = [], []
    for tensor in words:
        book, index = np.unique(tensor, return_inverse=True)
        order = np.argsort(_ordered(book, form), kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        books.append(book[order])
        indices.append(rank[index].reshape(tensor.shape).astype(np.int32))
    return books, np.stack(indices)


def _ordered(words: Words, form: Format) -> Words:
    """Keys in the order of the numbers."""
    sign = np.uint64(1 << (form.exponent + form.mantissa))
    mask = np.uint64((1 << (form.exponent + form.mantissa + 1)) - 1)
    return np.where(words & sign, ~words & mask, words | sign)


def _nearest_zero(book: Words, form: Format) -> int:
    return int((book & np.uint64((1 << (form.exponent + form.mantissa)) - 1)).argmin())


def _restores(unit: Unit, whole: memoryview) -> bool:
    """Whether numbers are all there is: not where half a last byte should be unused and is not."""
    odd_nibbles = BITS[unit.data_type] == 4 and unit.count % 2
    return not (odd_nibbles and any(part[-1] >> 4 for part in contents(unit, whole)))


def _code_bytes(stream: Stream, unit: Unit, whole: memoryview) -> None:
    """As LZMA makes it, for what is not like weights at all."""
    parts = contents(unit, whole)
    size = sum(map(len, parts))
    packed = b"" if stream.decoding else pack_plain(b"".join(parts))
    stream.book_as("values", 0)
    length = stream.number(len(packed) // _WIDE, _WIDE) * _WIDE
    length += stream.number(len(packed) % _WIDE, _WIDE)
    if length > 2 * size + 1024:
        raise Refused("the packed weights are damaged")
    found = stream.uniform(np.frombuffer(packed, np.uint8).astype(np.int32), length, 256)
    if stream.decoding:
        restored = unpack_plain(found.astype(np.uint8).tobytes(), size)
        for part in parts:
            part[:], restored = restored[: len(part)], restored[len(part) :]
