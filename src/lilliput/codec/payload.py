"""The contents of tensors as numbers to code, in batches of a bounded size, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.context import Shape
from lilliput.codec.floats import BRAIN, DOUBLE, HALF, INT32, SINGLE, Format
from lilliput.codec.wire import BITS, Slot

Numbers = NDArray[Any]

LEVELS = 256
_SAMPLE = 4096
UNIT = 1 << 18
"""Most numbers in a unit, which bounds the memory that coding takes beside the file itself."""

FLOATS: dict[int, tuple[Format, str]] = {
    1: (SINGLE, "<u4"),
    6: (INT32, "<i4"),
    10: (HALF, "<u2"),
    11: (DOUBLE, "<u8"),
    12: (INT32, "<u4"),
    16: (BRAIN, "<u2"),
}
"""The format that numbers of a TensorProto.DataType are coded in, and how they are stored."""

SIGNED = (3, 22)
"""The signed among the types of few levels: int8 and int4."""
LARGEST_KERNEL, MOST_SIDES = 1 << 10, 4
"""Of a kernel; a tensor with a larger one is coded as a vector."""


@dataclass(frozen=True)
class Unit:
    """Parts of equally shaped tensors that are coded together.

    `begin` and `count` are the elements that each of `slots` gives; they form (G, O, I, K).
    """

    slots: tuple[Slot, ...]
    begin: int
    count: int
    shape: Shape
    kernel: tuple[int, ...]

    @property
    def data_type(self) -> int:
        """The type of all of its tensors."""
        return self.slots[0].data_type


def groups(slots: Sequence[Slot]) -> list[list[Slot]]:
    """Tensors of one type and shape, in the order of the file; small ones before large ones."""
    found: dict[tuple[int, tuple[int, ...]], list[Slot]] = {}
    for slot in slots:
        found.setdefault((slot.data_type, slot.shape), []).append(slot)
    return sorted(found.values(), key=lambda group: group[0].count)


def units(group: Sequence[Slot], whole: int = 0) -> Iterator[Unit]:
    """A group in units: some tensors at a time, or some rows of one large tensor.

    Tensors of up to `whole` numbers are never cut.
    """
    if not group:
        return
    rows, columns, kernel = _matrix(group[0].shape)
    places = prod(kernel)
    at_once = UNIT // (columns * places)
    if rows <= at_once or group[0].count <= whole:
        together = max(1, at_once // rows)
        for first in range(0, len(group), together):
            some = tuple(group[first : first + together])
            shape = (len(some), rows, columns, places)
            yield Unit(some, 0, group[0].count, shape, kernel)
        return
    for slot in group:
        yield from _parts(slot, columns, kernel, at_once)


def _parts(slot: Slot, columns: int, kernel: tuple[int, ...], at_once: int) -> Iterator[Unit]:
    if at_once < 2:
        for begin in range(0, slot.count, UNIT):
            count = min(UNIT, slot.count - begin)
            yield Unit((slot,), begin, count, (1, 1, count, 1), (1,))
        return
    places = prod(kernel)
    rows = slot.count // (columns * places)
    # Rows in pairs, since two numbers of 4 bits share a byte.
    for row in range(0, rows, at_once & ~1):
        height = min(at_once & ~1, rows - row)
        size = columns * places
        yield Unit((slot,), row * size, height * size, (1, height, columns, places), kernel)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
    """Output channels, input channels and kernel; a vector is one row."""
    padded = (1,) * (2 - len(shape)) + shape
    kernel = padded[2:] or (1,)
    if prod(kernel) > LARGEST_KERNEL or len(kernel) > MOST_SIDES:
        return 1, prod(shape), (1,)
    return padded[0], padded[1], kernel


def contents(unit: Unit, whole: memoryview) -> list[memoryview]:
    """The bytes of the unit's part of each of its tensors, within the whole file."""
    bits = BITS[unit.data_type]
    begin, end = unit.begin * bits // 8, -(-(unit.begin + unit.count) * bits // 8)
    return [whole[slot.offset + begin : slot.offset + end] for slot in unit.slots]


def load(unit: Unit, whole: memoryview) -> Numbers:
    """The numbers of a unit: integers of few levels as they are, others as bits; (G, O, I, K)."""
    kind = unit.data_type
    loaded = [_load(part, kind, unit.count) for part in contents(unit, whole)]
    stacked: Numbers = np.stack(loaded).reshape(unit.shape)
    return stacked


def store(unit: Unit, numbers: Numbers, whole: memoryview) -> None:
    """Put the numbers where `load` found them."""
    rows = numbers.reshape(len(unit.slots), unit.count)
    for part, row in zip(contents(unit, whole), rows, strict=True):
        part[:] = _stored(row, unit.data_type)


def _load(part: memoryview, kind: int, count: int) -> Numbers:
    if kind in FLOATS:
        form, stored = FLOATS[kind]
        numbers = np.frombuffer(part, stored)
        if form.whole:
            return numbers.astype(np.float64).view(np.uint64)
        return numbers.astype(np.uint64)
    if kind == 3:
        return np.frombuffer(part, np.int8).astype(np.int32)
    if kind == 2:
        return np.frombuffer(part, np.uint8).astype(np.int32)
    pairs = np.frombuffer(part, np.uint8)
    nibbles = np.stack([pairs & 15, pairs >> 4], 1).ravel()[:count].astype(np.int32)
    return nibbles - 16 * (nibbles > 7) if kind in SIGNED else nibbles


def _stored(row: Numbers, kind: int) -> bytes:
    if kind in FLOATS:
        form, stored = FLOATS[kind]
        numbers = row.view(np.float64) if form.whole else row
        # A damaged file may hold signalling NaNs, and numbers too large for what it declares.
        with np.errstate(invalid="ignore", over="ignore"):
            return numbers.astype(stored).tobytes()
    narrow = row.astype(np.uint8)
    if kind in (2, 3):
        return narrow.tobytes()
    even = np.zeros(row.size + row.size % 2, np.uint8)
    even[: row.size] = narrow & 15
    return (even[0::2] | even[1::2] << 4).tobytes()


def has_few_values(slot: Slot, whole: memoryview) -> bool:
    """Whether a tensor of wide numbers has so few different ones that a codebook may pay."""
    if slot.data_type not in FLOATS:
        return False
    numbers = np.frombuffer(
        whole[slot.offset : slot.offset + slot.bytes], FLOATS[slot.data_type][1]
    )
    most = min(LEVELS, slot.count // 4)
    return np.unique(numbers[:_SAMPLE]).size <= most and np.unique(numbers).size <= most
