"""Weights that are small integers times a step of their own row.

That is how weights of few bits come out of training with a step for each output channel, and what
is left of any grid when batch norms are folded in: a factor for each channel. A tensor then has too
many different values for a codebook, but each of its rows has few. Rounded twice or three times on
the way, a value may be a unit or two in its last place away from integer times step; that too is
sent, once for each value of a row. A factor below zero makes zeros negative, and so does a negative
step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.coder import Stream
from lilliput.codec.floats import SINGLE, Tables, Words, code_floats
from lilliput.codec.tables import Ints, Table

LARGEST = 127
"""Of the integers."""

_APART = 4
"""Units in the last place by which a value may differ from integer times step."""

_SHARES = 8
"""The smallest value of a row may be up to so many steps."""

_FEWEST = 4
"""Numbers of a row that are worth a step of their own."""

_SIGN = np.uint64(1 << 31)


def corrections_table() -> Table:
    """How far values lie from integer times step: learnt over all of a file."""
    return Table.flat(1, 2 * _APART + 1)


def integers_of(words: Words) -> tuple[Words, Ints] | None:
    """(steps (G O,), integers (G, O, I, K)) of single-precision numbers; None if there are none."""
    rows = words.reshape(words.shape[0] * words.shape[1], -1)
    if rows.shape[1] < _FEWEST:
        return None
    found = []
    for row in rows:
        grid = _grid_of(row)
        if grid is None:
            return None
        found.append(grid)
    steps = np.array([step for step, _ in found], np.uint64)
    return steps, np.stack([integers for _, integers in found]).reshape(words.shape)


def _grid_of(row: Words) -> tuple[int, Ints] | None:
    """The step and the integers of one row."""
    magnitudes = row & ~_SIGN
    sizes = np.unique(magnitudes)
    sizes = sizes[sizes > 0]
    zeros = row[magnitudes == 0]
    sign = zeros[0] if zeros.size else np.uint64(0)
    if sizes.size > LARGEST or (zeros != sign).any():
        return None
    if not sizes.size:
        return int(sign), np.zeros(row.size, np.int32)
    values = _numbers(sizes)
    if not np.isfinite(values).all():
        return None
    for share in range(1, _SHARES + 1):
        step = np.float32(values[0] / share)
        if not step or values[-1] > (LARGEST + 0.5) * step:
            return None
        whole = np.rint(values / step)
        apart = sizes.astype(np.int64) - _levels(_words(step), whole).astype(np.int64)
        if (np.abs(apart) <= _APART).all() and (np.diff(whole) > 0).all():
            integers = np.concatenate([[0], whole])[np.searchsorted(sizes, magnitudes) + 1]
            integers[magnitudes == 0] = 0
            signs = 1 - 2 * ((row ^ sign) >= _SIGN).astype(np.int32)
            return int(_words(step) | sign), (integers * signs).astype(np.int32)
    return None


def code_steps(
    stream: Stream,
    tables: Tables,
    corrections: Table,
    integers: Ints,
    steps: Words | None,
    words: Words | None,
) -> Words:
    """The steps of all rows and what is left between integer times step and the numbers.

    Args:
        stream: Either direction.
        tables: Of single precision.
        corrections: Of `corrections_table`.
        integers: (G, O, I, K), known by now.
        steps: (G O,) for an encoder.
        words: (G, O, I, K) for an encoder.

    Returns:
        (G, O, I, K) the numbers.
    """
    count = integers.shape[0] * integers.shape[1]
    given = None if steps is None else steps.reshape(1, 1, count, 1)
    steps = code_floats(stream, tables, SINGLE, (1, 1, count, 1), (1,), given).ravel()
    rows = integers.reshape(count, -1)
    magnitudes = np.abs(rows)
    each = np.arange(count, dtype=np.int64)[:, None] * (LARGEST + 1) + magnitudes
    many = magnitudes > 1
    values, first = np.unique(each[many], return_index=True)
    signs, steps = steps & _SIGN, steps & ~_SIGN
    exact = _levels(steps[values // (LARGEST + 1)], (values % (LARGEST + 1)).astype(np.float64))
    apart = None
    if words is not None:
        told = (words.reshape(rows.shape) & ~_SIGN)[many][first].astype(np.int64)
        apart = (told - exact.astype(np.int64) + _APART).astype(np.int32)
    apart = stream.code(apart, np.zeros(values.size, np.int16), corrections)
    corrected = (exact.astype(np.int64) + apart - _APART).astype(np.uint64)
    found: Words = np.where(magnitudes == 1, steps[:, None], np.uint64(0))
    found[many] = corrected[np.searchsorted(values, each[many])]
    found |= np.where(rows < 0, _SIGN, np.uint64(0))
    found ^= signs[:, None]
    return found.reshape(integers.shape)


def _levels(steps: Words | np.uint64, whole: NDArray[np.float64]) -> Words:
    """Step times integer, rounded to single precision once."""
    with np.errstate(over="ignore"):
        return _words((_numbers(steps) * whole).astype(np.float32))


def _numbers(words: Words | np.uint64) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = np.asarray(words).astype(np.uint32).view(np.float32)
    # A damaged file may hold signalling NaNs.
    with np.errstate(invalid="ignore"):
        return numbers.astype(np.float64)


def _words(numbers: NDArray[np.float32] | np.float32) -> Words:
    words: Words = np.asarray(numbers, np.float32).view(np.uint32).astype(np.uint64)
    return words
