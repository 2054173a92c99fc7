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
from lilliput.codec.context import Context, Pass, Shape
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
    """The fields of a unit, (G, O, I, K) each; `rest` is the mantissa below its first bits."""

    zero: NDArray[np.bool_]
    exponent: Small
    sign: Small
    top: Small
    rest: Words

    @classmethod
    def empty(cls, shape: Shape) -> _Fields:
        return cls(
            zero=np.zeros(shape, np.bool_),
            exponent=np.zeros(shape, np.int16),
            sign=np.zeros(shape, np.int16),
            top=np.zeros(shape, np.int16),
            rest=np.zeros(shape, np.uint64),
        )

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
        made = (self.sign.astype(np.uint64) << np.uint64(form.exponent)) | self.exponent.astype(
            np.uint64
        )
        made = (made << np.uint64(TOP)) | self.top.astype(np.uint64)
        return (made << np.uint64(form.mantissa - TOP)) | self.rest


@dataclass(frozen=True)
class _Facts:
    """What is sent of a unit before its numbers."""

    largest: int
    some_zero: bool
    signed_zero: bool
    spare: int

    @classmethod
    def coded(cls, stream: Stream, form: Format, fields: _Fields | None) -> _Facts:
        """Send or receive them."""
        told = [0, 0, 0, 0]
        if fields is not None:
            spare = int(np.bitwise_or.reduce(fields.rest, axis=None))
            told = [
                int(fields.exponent.max()),
                int(fields.zero.any()),
                int(bool(fields.sign[fields.zero].any())),
                (spare & -spare).bit_length() - 1 if spare else form.mantissa - TOP,
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
    given = None if words is None else _Fields.of(words, form)
    facts = _Facts.coded(stream, form, given)
    fields = _Fields.empty(shape) if given is None else given
    context = Context(shape, kernel, 4095)
    for where in context.passes():
        _code_pass(stream, tables, form, facts, context, where, fields)
    _code_rest(stream, form, facts, fields)
    return fields.words(form)


def _code_pass(
    stream: Stream,
    tables: Tables,
    form: Format,
    facts: _Facts,
    context: Context,
    where: Pass,
    fields: _Fields,
) -> None:
    here = (slice(None), where.rows, where.columns, where.plane)
    given = None if stream.decoding else _proxies(fields, here, facts)
    expected, _ = predict(stream, tables.coefficient, context, where, given)
    size = context.size(where)

    zero = fields.zero[here].ravel()
    each = zero.size // len(fields.zero)
    if facts.some_zero:
        stream.book_as("significance", each)
        classes = np.zeros(zero.size, np.int16) if size is None else _size_class(size)
        zero = stream.code(zero.astype(np.int32), classes, tables.zero).astype(np.bool_)
    live = np.flatnonzero(~zero) if facts.some_zero else _ALL
    signs = _ALL if facts.signed_zero else live

    stream.book_as("values", each)
    usual = np.full(zero.size, facts.largest - 2, np.int16)
    row = np.zeros(zero.size, np.int16)
    if size is not None:
        usual = np.int16(facts.largest - 11) + (size >> 4)
        row = ((size >> 3) & 1) + np.int16(1)
    mask = np.int16((1 << form.exponent) - 1)
    below = ((usual - fields.exponent[here].ravel())[live] & mask).astype(np.int32)
    below = stream.code(below, row[live], tables.exponent, _listed(live))
    exponent = np.zeros(zero.size, np.int16)
    exponent[live] = (usual[live] - below) & mask

    place = (usual - exponent + np.int16(_BEFORE)).clip(0, _PLACES - 1)[live]
    top = np.zeros(zero.size, np.int16)
    told = fields.top[here].ravel()[live].astype(np.int32)
    top[live] = stream.code(told, place, tables.top, _listed(live))

    row, flip = _sign_class(expected, size, facts.largest - exponent)
    sign = np.zeros(zero.size, np.int16)
    told = (fields.sign[here].ravel() ^ flip)[signs].astype(np.int32)
    sign[signs] = stream.code(told, row[signs], tables.sign, _listed(signs)) ^ flip[signs]

    plane = fields.zero[here].shape
    for field, found in (
        (fields.zero, zero),
        (fields.exponent, exponent),
        (fields.top, top),
        (fields.sign, sign),
    ):
        field[here] = found.reshape(plane)
    context.learn(where, _proxies(fields, here, facts).ravel())


_ALL = slice(None)


def _listed(places: NDArray[np.intp] | slice) -> NDArray[np.intp] | None:
    return None if isinstance(places, slice) else places


def _proxies(
    fields: _Fields, here: tuple[slice, slice, slice, int], facts: _Facts
) -> NDArray[np.float32]:
    """The numbers as integers of at most 12 bits, the largest exponent on top."""
    down = (facts.largest - fields.exponent[here]).clip(0, 15)
    found = ((fields.top[here] + np.int16(1 << TOP)) << np.int16(11 - TOP)) >> down
    found[fields.zero[here]] = 0
    signed: NDArray[np.float32] = np.where(fields.sign[here] == 1, -found, found).astype(np.float32)
    return signed


def _size_class(size: Small) -> Small:
    return (size >> 3).clip(-2, _SIZES - 3) + np.int16(3)


def _sign_class(expected: Small | None, size: Small | None, down: Small) -> tuple[Small, Small]:
    """How sure the expected value makes the sign, in octaves, and the sign that it has."""
    if expected is None or size is None:
        return np.zeros(down.size, np.int16), np.zeros(down.size, np.int16)
    # log2 of |expected| |value| / size**2, where the value is 2**(11 - down).
    sure = (
        log_of(np.abs(expected), 1 << 15)
        - np.int16(2) * size
        + np.int16(16) * (np.int16(8) - down.clip(0, 15))
    )
    return (sure >> 4).clip(-5, 3) + np.int16(6), (expected < 0).astype(np.int16)


def _code_rest(stream: Stream, form: Format, facts: _Facts, fields: _Fields) -> None:
    widths = _widths(form, facts, fields)
    rest = fields.rest.ravel()
    stream.book_as("values", rest.size // len(fields.rest))
    for width in np.flatnonzero(np.bincount(widths)).tolist():
        chosen = np.flatnonzero(widths == width)
        lowest = form.mantissa - TOP - width
        for piece in range(0, width, PIECE):
            bits = min(PIECE, width - piece)
            shift = np.uint64(lowest + width - piece - bits)
            told = ((rest[chosen] >> shift) & np.uint64((1 << bits) - 1)).astype(np.int32)
            found = stream.uniform(told, chosen.size, 1 << bits, chosen)
            if stream.decoding:
                rest[chosen] |= found.astype(np.uint64) << shift
    fields.rest[...] = rest.reshape(fields.rest.shape)


def _widths(form: Format, facts: _Facts, fields: _Fields) -> Ints:
    """Bits of the rest of each mantissa; none of a zero."""
    if form.whole:
        widths = (fields.exponent.astype(np.int32) - _UNIT_EXPONENT - TOP).clip(0)
    else:
        widths = np.full(fields.zero.shape, form.mantissa - TOP - facts.spare, np.int32)
    return np.where(fields.zero, 0, widths).ravel()
