"""What is known of a weight before it is decoded: its likely size, and its likely value.

A unit of weights has four axes: (G, O, I, K) tensors, output channels, input channels, places of
the kernel. It is decoded plane by plane, a plane being one place of all kernels; so each plane
but the first sees, for every single kernel, the places that are already there.

- *Size*: the mean magnitude of what is known of the same output channel, of the same input
  channel and of the same kernel, put together on a logarithmic scale.
- *Value*: neighbouring places of a kernel are alike. A linear prediction from the nearest known
  planes, whose coefficients the encoder fits and sends, takes 4 % off an int8 file of a 3x3
  network and 7 % off a 4-bit one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.tables import STEPS, Ints, Small, log_of

Shape = tuple[int, int, int, int]
LARGEST = 4095
"""Of a magnitude: it fits int16 eight times, and predictions stay exact in float32."""
NEIGHBOURS = 8
_TILES, _TILES_ALONE = 2, 6
"""Along each of rows and columns, where planes follow that know more, and where none do."""
_WORTH_A_TILE = 512
MARGIN_SHARE = 10
KERNEL_SHARE = (0, 1, 2, 2, 3, 3, 3, 3, 4)
"""Sixteenths of the deviation of a channel, and of a kernel of which n places are known, that
count: least squares over published networks, nearly the same in all of them."""


@dataclass(frozen=True)
class Pass:
    """What is coded in one go: a tile of one plane. `step` of them were known before."""

    rows: slice
    columns: slice
    plane: int
    step: int


@lru_cache(32)
def planes(kernel: tuple[int, ...]) -> list[int]:
    """The places of a kernel, from the middle outwards."""
    grid = np.indices(kernel).reshape(len(kernel), -1)
    middle = np.array([(side - 1) for side in kernel])[:, None]
    far = ((2 * grid - middle) ** 2).sum(0)
    found: list[int] = np.argsort(far, kind="stable").tolist()
    return found


@lru_cache(32)
def neighbours(kernel: tuple[int, ...]) -> list[list[int]]:
    """For each step, the steps of the nearest planes before it: at most 8, in their order."""
    grid = np.indices(kernel).reshape(len(kernel), -1)[:, planes(kernel)]
    found = []
    for step in range(grid.shape[1]):
        far = ((grid[:, :step] - grid[:, [step]]) ** 2).sum(0)
        found.append(sorted(np.argsort(far, kind="stable")[:NEIGHBOURS].tolist()))
    return found


class Context:
    """The known part of one unit.

    Args:
        shape: (G, O, I, K).
        kernel: The sides of the kernel, whose product is K.
        largest: Bound of the magnitudes, at most 4095.

    Attributes:
        known: (K, G, O, I) the values, in the order in which their planes are coded.
    """

    def __init__(self, shape: Shape, kernel: tuple[int, ...], largest: int) -> None:
        groups, rows, columns, places = shape
        self.shape, self.largest = shape, largest
        self.kernel = kernel
        self.known = np.zeros((places, groups, rows, columns), np.float32)
        self._row = np.zeros((groups, rows), np.int64)
        self._column = np.zeros((groups, columns), np.int64)
        narrow = np.int16 if largest * places < 1 << 15 else np.int32
        self._kernel = np.zeros((groups, rows, columns), narrow)
        self._row_count = np.zeros(rows, np.int64)
        self._column_count = np.zeros(columns, np.int64)
        self._count = 0

    def passes(self) -> list[Pass]:
        """All passes in their order. The first plane is tiled, so that it too learns sizes."""
        _, rows, columns, places = self.shape
        most = _TILES if places > 1 else _TILES_ALONE
        cuts = max(1, min(most, isqrt(self.known[0].size // _WORTH_A_TILE)))
        first, *others = planes(self.kernel)
        tiles = [
            Pass(row, column, first, 0)
            for row in slices(rows, cuts)
            for column in slices(columns, cuts)
        ]
        whole = slice(0, rows), slice(0, columns)
        return tiles + [Pass(*whole, plane, step) for step, plane in enumerate(others, 1)]

    def near(self, where: Pass) -> NDArray[np.float32]:
        """The nearest known planes: (G, up to 8, O I)."""
        steps = neighbours(self.kernel)[where.step]
        all_of_them = len(steps) == where.step
        known = self.known[: where.step] if all_of_them else self.known[steps]
        return known.reshape(len(steps), self.shape[0], -1).transpose(1, 0, 2)

    def values(self) -> Ints:
        """All values, (G, O, I, K)."""
        found = np.empty(self.shape, np.int32)
        found[..., planes(self.kernel)] = np.moveaxis(self.known, 0, 3)
        return found

    def count(self, where: Pass) -> int:
        """Number of weights in a pass."""
        return int(self.known[0, :, where.rows, where.columns].size)

    def size(self, where: Pass) -> Small | None:
        """Expected magnitude in sixteenths of an octave, flat; None where nothing is known."""
        if not self._count:
            return None
        mean = self._mean(self._row.sum(1), self._row_count.sum(keepdims=True))[:, None]
        row = self._deviation(self._row, self._row_count, where.rows, mean)
        column = self._deviation(self._column, self._column_count, where.columns, mean)
        size = row[:, :, None] + column[:, None, :]
        if where.step:
            share = np.int16(KERNEL_SHARE[min(where.step, len(KERNEL_SHARE) - 1)])
            kernel = log_of(self._kernel, self.largest * self.shape[3])
            kernel *= share
            size += kernel
            size -= ((mean + log_of(np.array([where.step]), where.step)) * share)[:, :, None]
        size >>= 4
        size += mean[:, :, None]
        return size.ravel()

    def learn(self, where: Pass, values: NDArray[np.float32]) -> None:
        """Take in the values of a pass, flat."""
        part = self.known[where.step, :, where.rows, where.columns]
        part[...] = values.reshape(part.shape)
        magnitude = np.abs(part).astype(np.int16)
        self._row[:, where.rows] += magnitude.sum(2, dtype=np.int32)
        self._column[:, where.columns] += magnitude.sum(1, dtype=np.int32)
        self._kernel[:, where.rows, where.columns] += magnitude
        self._row_count[where.rows] += part.shape[2]
        self._column_count[where.columns] += part.shape[1]
        self._count += values.size

    def _deviation(
        self, sums: NDArray[np.int64], counts: NDArray[np.int64], part: slice, mean: Small
    ) -> Small:
        """Of channels from the mean of all, times their share; 0 where nothing is known."""
        found = (self._mean(sums[:, part], counts[part]) - mean) * np.int16(MARGIN_SHARE)
        return np.where(counts[part] > 0, found, np.int16(0))

    def _mean(self, sums: NDArray[np.int64], counts: NDArray[np.int64]) -> Small:
        sixteenths = 16 * sums // np.maximum(counts, 1)
        return log_of(sixteenths, 16 * self.largest) - np.int16(4 * STEPS)


def slices(length: int, parts: int) -> list[slice]:
    """Nearly equal parts, none of fewer than four."""
    parts = max(1, min(parts, length // 4))
    cuts = [length * part // parts for part in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(cuts)]
