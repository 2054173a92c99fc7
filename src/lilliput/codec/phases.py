"""In which order the places of a sparse tensor are coded, and which neighbours are known by then.

Columns are taken from far apart to near, so that of most places the neighbours on all sides are
known when their turn comes. Where the inputs of a dense layer are pixels, columns are those of a
picture, in lines: their neighbours above and below count as much as those left and right. Kernels
are taken plane by plane, from the middle outwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.context import planes

Columns = NDArray[np.intp]

Steps = tuple[tuple[int, int], ...]

_CORNERS: Steps = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_SIDES: Steps = ((0, -1), (0, 1), (-1, 0), (1, 0))
_FARTHEST = 16
_NEARNESS = {(2, _CORNERS): 1, (2, _SIDES): 1, (1, _CORNERS): 6, (1, _SIDES): 11}
"""First of five classes, for 0 to 4 neighbours that are so far away and not zero."""
NEARNESSES = 16
TABLES = 7
"""Of odds: version 2 of the format had one for each number of neighbours, at most two."""

_LEANING = {2: 3, 1: 1}
LEANINGS = 5
"""Classes of values: nothing known; near neighbours negative, positive; the same farther away."""


@dataclass(frozen=True)
class Phase:
    """What is coded in one go, of some rows.

    Attributes:
        columns: Which ones. With a kernel all, but the first plane is coded in tiles.
        plane: The place of the kernel.
        known: How many of its places were coded before.
        beside: (columns, neighbours) their neighbours' columns; with a kernel (neighbours,) planes.
            The number of columns stands for one beyond the border.
        nearness: The first class of a place, by its number of neighbours; 0: they are not counted.
        leaning: The first of the two classes of values; 0: neighbours say nothing.
        table: The first table of odds, by the number of neighbours; version 2 alone has others
            than the first.
    """

    columns: Columns
    plane: int
    known: int
    beside: Columns
    nearness: int = 0
    leaning: int = 0
    table: int = 0


@lru_cache(32)
def of_kernel(columns: int, kernel: tuple[int, ...]) -> list[Phase]:
    """A phase for each place, whose neighbours are the known ones at its sides and corners."""
    order, every = planes(kernel), np.arange(columns)
    grid = np.indices(kernel).reshape(len(kernel), -1).T
    found = []
    for known, plane in enumerate(order):
        before = np.array(order[:known], np.intp)
        near = before[((grid[before] - grid[plane]) ** 2).sum(1) <= 2]
        found.append(Phase(every, plane, known, near, leaning=int(near.size > 0)))
    return found


@lru_cache(4)
def of_lines(columns: int, line: int) -> list[Phase]:
    """Columns as a picture of so many to a line; `line` = `columns` is one line."""
    across, down = np.arange(columns) % line, np.arange(columns) // line
    none = np.zeros((0, 0), np.intp)

    def beside(here: Columns, far: int, steps: Steps) -> Columns:
        found = np.full((here.size, len(steps)), columns, np.intp)
        for number, (dy, dx) in enumerate(steps):
            x, y = across[here] + far * dx, down[here] + far * dy
            at = y * line + x
            inside = (x >= 0) & (x < line) & (y >= 0) & (at < columns)
            found[inside, number] = at[inside]
        return found

    first = np.flatnonzero((across % _FARTHEST == 0) & (down % _FARTHEST == 0))
    phases = [Phase(first, 0, 0, none)]
    for far, steps, here in _halving(across, down):
        nearness, leaning = _NEARNESS.get((far, steps), 0), _LEANING.get(far, 0)
        near = beside(here, far, steps) if nearness else none
        phases.append(Phase(here, 0, 0, near, nearness, leaning))
    return phases


def _halving(across: Columns, down: Columns) -> Iterator[tuple[int, Steps, Columns]]:
    """(distance, directions of the neighbours, columns): between known ones, ever nearer."""
    far = _FARTHEST // 2
    while far:
        odd_x, odd_y = across % (2 * far) == far, down % (2 * far) == far
        even_x, even_y = across % (2 * far) == 0, down % (2 * far) == 0
        for steps, chosen in (
            (_CORNERS, odd_x & odd_y),
            (_SIDES, (odd_x & even_y) | (even_x & odd_y)),
        ):
            here = np.flatnonzero(chosen)
            parts = min(-(-_FARTHEST * here.size // across.size), here.size)
            yield from ((far, steps, here[part::parts]) for part in range(parts))
        far //= 2


@lru_cache(32)
def of_version_2(columns: int) -> list[Phase]:
    """Every sixteenth column, then those in the middle between; two neighbours at most."""
    phases = []
    for far in (16, 8, 4, 2, 1):
        starts = (n for n in range(16) if (n or 16) & -(n or 16) == far)
        for start in (n for n in starts if n < columns):
            here = np.arange(start, columns, 16)
            sides = np.stack([here - far, np.minimum(here + far, columns)], 1)
            phases.append(Phase(here, 0, 0, sides, table={2: 1, 1: 4}.get(far, 0)))
    return phases


def likely_line(signs: NDArray[np.int8]) -> int | None:
    """How long the lines of a picture are whose pixels these columns (rows, columns) may be.

    Signs agree most where columns are a line apart: more than at one column fewer, or more.
    """
    columns = signs.shape[1]
    if not 9 <= columns <= 4096:
        return None
    alike = signs.astype(np.float32).T @ signs.astype(np.float32)
    by_distance = np.array([np.trace(alike, far) for far in range(columns // 2 + 1)])
    inner = by_distance[1:-1]
    peaks = np.flatnonzero((inner > by_distance[:-2]) & (inner > by_distance[2:])) + 1
    peaks = peaks[peaks >= 3]
    return int(peaks[by_distance[peaks].argmax()]) if peaks.size else None
