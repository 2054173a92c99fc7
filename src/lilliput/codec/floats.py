"""Floating point and wide integers: exponent, sign, top of the mantissa in context; rest as is.

A number is taken apart into the fields of its own format. First comes whether it is zero (of a
pruned network that is where the weights are), then its exponent, by the size that is expected of
it, its sign, by the expected value, and the first bits of its mantissa, by where in the bell it
lies. The rest of the mantissa is noise in any trained network, and is stored at its full length,
but for bits that are zero in the whole unit: half precision kept in single costs what half
precision does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.coder import Stream
from lilliput.codec.context import LARGEST, Context, Pass, Shape
from lilliput.codec.prediction import coefficient_table, predict
from lilliput.codec.tables import Counts, Ints, Small, Table, log_of

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Format:
    """Widths of the fields; `whole` numbers are coded as the float64 of the same value."""

    exponent: int
    mantissa: int
    whole: bool = False


SINGLE, HALF, BRAIN = Format(8, 23), Format(5, 10), Format(8, 7)
DOUBLE, INT32 = Format(11, 52), Format(11, 52, whole=True)

TOP = 3
PIECE = 20
_UNIT_EXPONENT = 1023
_SIZES = 32
_SIGNS, _PLACES, _BEFORE = 10, 12, 4
_USUAL = (64, 256, 1024, 1024, 1024, 512, 256, 128, 64, 32, 16, 8)
"""Counts of an exponent that is 2 above the expected, 1 above, as expected, below, ..."""


@dataclass
class Tables:
    """What the numbers of one format teach, over all of a file."""

    zero: Table
    exponent: Table
    sign: Table
    top: Table
    coefficient: Table

    @classmethod
    def new(cls, form: Format) -> Tables:
        """Nothing known."""
        return cls(
            zero=Table.flat(1 + _SIZES, 2),
            exponent=Table(_usual_exponents(1 << form.exponent), weight=64),
            sign=Table.flat(_SIGNS, 2),
            top=Table.flat(_PLACES, 1 << TOP),
            coefficient=coefficient_table(),
        )


def _usual_exponents(count: int) -> Counts:
    counts = np.ones((3, count))
    for below, usual in enumerate(_USUAL, -2):
        counts[:, below % count] += usual
    return counts


@dataclass
class _Fields:
    """The fields of some numbers, flat; `rest` is the mantissa below its first bits."""

    zero: NDArray[np.bool_]
    exponent: Small
    sign: Small
    top: Small
    rest: Words

    @classmethod
    def of(cls, words: Words, form: Format) -> _Fields:
        rest = form.mantissa - TOP
        exponent = (words >> np.uint64(form.mantissa)) & np.uint64((1 << form.exponent) - 1)
        return cls(
            zero=(words & np.uint64((1 << (form.exponent + form.mantissa)) - 1)) == 0,
            exponent=exponent.astype(np.int16),
            sign=(words >> np.uint64(form.exponent + form.mantissa)).astype(np.int16),
            top=(words >> np.uint64(rest) & np.uint64((1 << TOP) - 1)).astype(np.int16),
            rest=words & np.uint64((1 << rest) - 1),
        )

    def words(self, form: Format) -> Words:
        # Sign, exponent and first bits of the mantissa have at most 15 bits together.
        high = (self.sign << np.int16(form.exponent + TOP)) | (self.exponent << np.int16(TOP))
        high |= self.top
        return (high.astype(np.uint64) << np.uint64(form.mantissa - TOP)) | self.rest

    def proxies(self, largest: int) -> NDArray[np.float32]:
        """The numbers as integers of at most 12 bits, the largest exponent on top."""
        down = (np.int16(largest) - self.exponent).clip(0, 15)
        found = ((self.top + np.int16(1 << TOP)) << np.int16(11 - TOP)) >> down
        found *= np.int16(1) - np.int16(2) * self.sign
        found *= ~self.zero
        proxies: NDArray[np.float32] = found.astype(np.float32)
        return proxies


@dataclass(frozen=True)
class _Facts:
    """What is sent of a unit before its numbers."""

    largest: int
    some_zero: bool
    signed_zero: bool
    spare: int

    @classmethod
    def coded(cls, stream: Stream, form: Format, words: Words | None) -> _Facts:
        """Send or receive them."""
        told = [0, 0, 0, 0]
        if words is not None:
            fields = _Fields.of(words.ravel(), form)
            used = int(np.bitwise_or.reduce(fields.rest))
            told = [
                int(fields.exponent.max()),
                int(fields.zero.any()),
                int(fields.sign[fields.zero].any()),
                (used & -used).bit_length() - 1 if used else form.mantissa - TOP,
            ]
        sizes = (1 << form.exponent, 2, 2, form.mantissa - TOP + 1)
        stream.book_as("context", 0)
        largest, some, signed, spare = map(stream.number, told, sizes)
        return cls(largest, bool(some), bool(signed), spare)


def code_floats(
    stream: Stream,
    tables: Tables,
    form: Format,
    shape: Shape,
    kernel: tuple[int, ...],
    words: Words | None,
) -> Words:
    """Numbers of one format, as the bits they are made of.

    Args:
        stream: Either direction.
        tables: Of this format; they learn.
        form: The format; float64 bits for `INT32`.
        shape: (G, O, I, K).
        kernel: Sides of the kernel.
        words: (G, O, I, K) for an encoder.
    """
    facts = _Facts.coded(stream, form, words)
    context = Context(shape, kernel, LARGEST)
    found = np.empty((shape[3], *shape[:3]), np.uint64)
    for where in context.passes():
        given = None
        if words is not None:
            given = _Fields.of(words[:, where.rows, where.columns, where.plane].ravel(), form)
        fields = _Pass(stream, tables, form, facts, context, where).coded(given)
        context.learn(where, fields.proxies(facts.largest))
        part = found[where.plane, :, where.rows, where.columns]
        part[...] = fields.words(form).reshape(part.shape)
    return np.moveaxis(found, 0, 3)


_ALL = slice(None)
_Places = NDArray[np.intp] | slice


@dataclass(frozen=True)
class _Pass:
    """One pass over the numbers of a unit; a method for each field."""

    stream: Stream
    tables: Tables
    form: Format
    facts: _Facts
    context: Context
    where: Pass

    def coded(self, given: _Fields | None) -> _Fields:
        """All fields, one after the other."""
        count = self.context.count(self.where)
        proxies = None if given is None else given.proxies(self.facts.largest)
        table = self.tables.coefficient
        expected, _ = predict(self.stream, table, self.context, self.where, proxies)
        size = self.context.size(self.where)

        zero = np.zeros(count, np.bool_)
        live: _Places = _ALL
        if self.facts.some_zero:
            self.stream.book_as("significance", count // self.context.shape[0])
            zero = self._zero(given, size, count)
            live = np.flatnonzero(~zero)
        self.stream.book_as("values", count // self.context.shape[0])
        exponent, usual = self._exponent(given, size, live, count)
        fields = _Fields(
            zero=zero,
            exponent=exponent,
            sign=np.zeros(count, np.int16),
            top=np.zeros(count, np.int16),
            rest=np.zeros(count, np.uint64),
        )
        place = (usual - exponent + np.int16(_BEFORE)).clip(0, _PLACES - 1)[live]
        told = None if given is None else given.top
        fields.top[live] = self._code(told, place, self.tables.top, live)
        self._sign(given, fields, expected, size, _ALL if self.facts.signed_zero else live)
        self._rest(given, fields, live)
        return fields

    def _code(self, given: Small | None, row: Small, table: Table, places: _Places) -> Ints:
        """Symbols at some places of the pass; `row` is at these places only."""
        told = None if given is None else given[places].astype(np.int32)
        return self.stream.code(told, row, table, None if isinstance(places, slice) else places)

    def _zero(self, given: _Fields | None, size: Small | None, count: int) -> NDArray[np.bool_]:
        row = np.zeros(count, np.int16)
        if size is not None:
            row = (size >> 3).clip(-2, _SIZES - 3) + np.int16(3)
        told = None if given is None else given.zero.astype(np.int16)
        return self._code(told, row, self.tables.zero, _ALL).astype(np.bool_)

    def _exponent(
        self, given: _Fields | None, size: Small | None, live: _Places, count: int
    ) -> tuple[Small, Small]:
        """The exponents, and those that were expected."""
        usual = np.full(count, self.facts.largest - 2, np.int16)
        row = np.zeros(count, np.int16)
        if size is not None:
            usual = np.int16(self.facts.largest - 11) + (size >> 4)
            row = ((size >> 3) & 1) + np.int16(1)
        mask = np.int16((1 << self.form.exponent) - 1)
        told = None if given is None else (usual - given.exponent) & mask
        below = self._code(told, row[live], self.tables.exponent, live)
        exponent = np.zeros(count, np.int16)
        exponent[live] = (usual[live] - below) & mask
        return exponent, usual

    def _sign(
        self,
        given: _Fields | None,
        fields: _Fields,
        expected: Small | None,
        size: Small | None,
        places: _Places,
    ) -> None:
        """By how sure the expected value makes it, in octaves."""
        row, flip = np.zeros((2, fields.sign.size), np.int16)
        if expected is not None and size is not None:
            # log2 of |expected| |value| / size**2, where the value is 2**(11 - down).
            down = (np.int16(self.facts.largest) - fields.exponent).clip(0, 15)
            sure = log_of(np.abs(expected), 1 << 15) - np.int16(2) * size
            sure += np.int16(16) * (np.int16(8) - down)
            row = (sure >> 4).clip(-5, 3) + np.int16(6)
            flip = (expected < 0).astype(np.int16)
        told = None if given is None else given.sign ^ flip
        coded = self._code(told, row[places], self.tables.sign, places)
        fields.sign[places] = coded ^ flip[places]

    def _rest(self, given: _Fields | None, fields: _Fields, live: _Places) -> None:
        """The rest of each mantissa, by its width."""
        if not self.form.whole:
            width = self.form.mantissa - TOP - self.facts.spare
            self._bits(given, fields, live, width)
            return
        widths = (fields.exponent - np.int16(_UNIT_EXPONENT + TOP)).clip(0)
        widths[fields.zero] = 0
        for width in np.flatnonzero(np.bincount(widths)).tolist():
            self._bits(given, fields, np.flatnonzero(widths == width), width)

    def _bits(self, given: _Fields | None, fields: _Fields, places: _Places, width: int) -> None:
        listed = None if isinstance(places, slice) else places
        count = fields.rest[places].size
        lowest = self.form.mantissa - TOP - width
        for taken in range(0, width, PIECE):
            bits = min(PIECE, width - taken)
            shift = np.uint64(lowest + width - taken - bits)
            told = None
            if given is not None:
                told = ((given.rest[places] >> shift) & np.uint64((1 << bits) - 1)).astype(np.int32)
            found = self.stream.uniform(told, count, 1 << bits, listed)
            fields.rest[places] |= found.astype(np.uint64) << shift
