"""The likely value of a weight, from the nearest known places of its kernel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.coder import Stream
from lilliput.codec.context import LARGEST, NEIGHBOURS, Context, Pass
from lilliput.codec.tables import Small, Table

UNIT = 32
"""Coefficients are in 32nds, and none beyond 2."""
LARGEST_COEFFICIENT = 63
_SIGNED = 2 * LARGEST_COEFFICIENT + 1
_NOT_AT_ALL, _TOGETHER, _EACH = range(3)
_BITS_EACH = 5
_SHIFTS = 16
"""Quarters of an octave by which what is left may be smaller than the weights."""
_FARTHEST = 8 * LARGEST

Floats = NDArray[np.float32]
Coefficients = NDArray[np.int32]


def coefficient_table() -> Table:
    """For the coefficients of a file, by the order of the neighbours."""
    return Table.flat(NEIGHBOURS, _SIGNED)


def predict(
    stream: Stream, table: Table, context: Context, where: Pass, values: Floats | None
) -> tuple[Small | None, int]:
    """What a plane is expected to be, and by how much smaller the difference is.

    The encoder (`values` given, flat) fits coefficients, for all tensors of the unit together or
    for each, as it pays, and sends them.

    Returns:
        (eight times the expected values, flat) or None where nothing is predicted;
        sixteenths of an octave that the difference is smaller than the values themselves.
    """
    if not where.step:
        return None, 0
    known = context.near(where)
    groups, near, _ = known.shape
    way, shift, sent = _NOT_AT_ALL, 0, np.zeros((groups, near), np.int32)
    if values is not None:
        way, shift, sent = _fit(known, values.reshape(groups, 1, -1))
    stream.book_as("context", 0)
    way = stream.number(way, 3)
    if way == _NOT_AT_ALL:
        return None, 0
    shift = stream.number(shift, _SHIFTS)
    if way == _TOGETHER:
        sent = sent[:1]
    rows = np.tile(np.arange(near, dtype=np.int16), len(sent))
    coded = stream.code(sent.ravel() + LARGEST_COEFFICIENT, rows, table)
    coefficients = (coded - LARGEST_COEFFICIENT).astype(np.float32).reshape(-1, 1, near)
    # Exact whatever the order of the additions: integers, and none beyond 8 x 63 x 4095.
    expected = np.matmul(coefficients, known).ravel()
    expected *= np.float32(8 / UNIT)
    np.rint(expected, out=expected)
    return expected.clip(-_FARTHEST, _FARTHEST).astype(np.int16), 4 * shift


def _fit(known: Floats, values: Floats) -> tuple[int, int, Coefficients]:
    """Least squares in 32nds: (way, shift, (G, neighbours)); whatever does not pay is left out."""
    groups, near, size = known.shape
    grams = np.matmul(known, known.transpose(0, 2, 1)).astype(np.float64)
    targets = np.matmul(known, values.transpose(0, 2, 1)).astype(np.float64)
    before = np.abs(values).mean((1, 2)) + 1e-3
    best = _NOT_AT_ALL, 0, np.zeros((groups, near), np.int32)
    most = 0.0
    shared = _solved(grams.sum(0, keepdims=True), targets.sum(0, keepdims=True))
    ways = [(_TOGETHER, shared.repeat(groups, 0), near)]
    if groups > 1:
        ways.append((_EACH, _solved(grams, targets), groups * near))
    for way, coefficients, count in ways:
        left = values - np.matmul((coefficients / UNIT).astype(np.float32)[:, None], known)
        octaves = np.log2(before / (np.abs(left).mean((1, 2)) + 1e-3))
        gain = float(octaves.sum()) * size - _BITS_EACH * (count + 1)
        if gain > most:
            shift = min(_SHIFTS - 1, max(0, round(4 * float(octaves.mean()))))
            best, most = (way, shift, coefficients), gain
    return best


def _solved(grams: NDArray[np.float64], targets: NDArray[np.float64]) -> Coefficients:
    diagonal = np.arange(grams.shape[1])
    grams[:, diagonal, diagonal] = grams[:, diagonal, diagonal] * 1.001 + 1e-3
    found = np.rint(UNIT * np.linalg.solve(grams, targets))[:, :, 0]
    clipped: Coefficients = found.clip(-LARGEST_COEFFICIENT, LARGEST_COEFFICIENT).astype(np.int32)
    return clipped
