"""Which index of which dimension is the same channel: the notes taken while a network runs once.

Every dimension of a tensor is labelled by an array of *atoms*, one number per index, or by a
sentence that says why its size is fixed ("positions in space"). Two indices with tied atoms can
only go together. Nothing is decided here: ties, freezes and doubts are written down, and
`lilliput.prune.groups` draws the conclusions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

Atoms = NDArray[np.int64]
Dim = Atoms | str
Labels = tuple[Dim, ...]

BATCH = "it is the batch"
SPACE = "it counts positions, not channels"
INPUT = "it is the network's input"
CONSTANT = "it meets a constant tensor of the code"


def repeat(dim: Dim, times: int) -> Dim:
    """Each label `times` in a row: (a, b) → (a, a, b, b)."""
    return dim if isinstance(dim, str) else np.repeat(dim, times)


def tile(dim: Dim, times: int) -> Dim:
    """All labels, `times` over: (a, b) → (a, b, a, b)."""
    return dim if isinstance(dim, str) else np.tile(dim, times)


@dataclass(frozen=True)
class Seed:
    """A parameter or buffer: its name and the first atom of each of its dimensions."""

    name: str
    shape: tuple[int, ...]
    starts: tuple[int, ...]
    trainable: bool

    def labels(self) -> Labels:
        return tuple(
            np.arange(start, start + size, dtype=np.int64)
            for start, size in zip(self.starts, self.shape, strict=True)
        )


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one operation: `constant` × the product of the widths of `axes`."""

    path: str
    kind: str
    axes: tuple[Atoms, ...]
    constant: int

    @property
    def macs(self) -> int:
        """Multiply-adds of the network as it is, for the whole batch."""
        return self.constant * prod(len(axis) for axis in self.axes)


@dataclass(frozen=True)
class LayerNote:
    """A convolution or linear map met in the run: the labels of what it reads and what it gives.

    `kind` is "conv3x3" (any kernel larger than 1×1), "conv1x1", "depthwise", "grouped", "linear"
    or "embedding"; `groups` are those of a grouped convolution.
    """

    path: str
    kind: str
    macs: int
    inputs: Dim
    outputs: Dim
    weight: str | None
    groups: int = 1


@dataclass
class Ledger:
    """All that was noted in one run. `choices` picks, for a doubtful operation (by its number),
    another of the readings it offered; `offers` says how many there were.
    """

    choices: Mapping[int, int] = field(default_factory=dict)
    size: int = 0
    seeds: list[Seed] = field(default_factory=list)
    ties: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    freezes: list[tuple[Atoms, str]] = field(default_factory=list)
    untracked: list[Atoms] = field(default_factory=list)
    doubts: list[tuple[Atoms, tuple[int, int], str]] = field(default_factory=list)
    offers: dict[int, int] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)
    layers: list[LayerNote] = field(default_factory=list)
    first_use: dict[str, int] = field(default_factory=dict)
    kept_by_mask: set[str] = field(default_factory=set)
    norm_scales: set[str] = field(default_factory=set)
    readers: list[Atoms] = field(default_factory=list)
    op_number: int = 0
    path: str = ""
    op: str = ""

    def seed(self, name: str, shape: tuple[int, ...], *, trainable: bool) -> Labels:
        """Fresh labels for a parameter or buffer."""
        starts = []
        for size in shape:
            starts.append(self.size)
            self.size += size
        self.seeds.append(Seed(name, shape, tuple(starts), trainable))
        return self.seeds[-1].labels()

    def fresh(self, count: int) -> Atoms:
        """Atoms of a dimension that belongs to no parameter (a constant made in the forward)."""
        atoms = np.arange(self.size, self.size + count, dtype=np.int64)
        self.size += count
        return atoms

    def frozen(self, count: int, why: str) -> Atoms:
        """Fresh atoms that may never go."""
        atoms = self.fresh(count)
        self.freeze(atoms, why)
        return atoms

    def tie(self, one: Dim, other: Dim) -> None:
        """Index by index: both go or none. A fixed dimension freezes what it meets."""
        if isinstance(one, str):
            self.freeze(other, one)
        elif isinstance(other, str):
            self.freeze(one, other)
        elif one.size != other.size:
            for dim in (one, other):
                self.freeze(dim, "it meets a dimension of another size, in a way not followed")
        elif one is not other:
            self.ties.append((one, other))

    def tie_blocks(self, dim: Dim, blocks: int) -> Dim:
        """Tie the j-th of each of `blocks` equal blocks; returns the labels of one block."""
        if isinstance(dim, str):
            return dim
        grid = dim.reshape(blocks, -1)
        for row in grid[1:]:
            self.ties.append((grid[0], row))
        block: Atoms = grid[0]
        return block

    def freeze(self, dim: Dim, why: str) -> None:
        """These may never go; the reason names the place and the operation."""
        if not isinstance(dim, str) and dim.size:
            self.freezes.append((dim, f"{self.where()}: {why}"))

    def untrack(self, *dims: Dim) -> None:
        """These are no channels at all (the taps of a kernel), and nobody need hear of them."""
        self.untracked += [dim for dim in dims if not isinstance(dim, str)]

    def reads(self, dim: Dim) -> None:
        """Indices of a weight by which it sums over incoming channels."""
        if not isinstance(dim, str):
            self.readers.append(dim)

    def doubt(self, dim: Dim, piece: int = 0, *, readings: int = 1) -> None:
        """The code may hold the number of channels as a constant here: only a trial can tell."""
        if not isinstance(dim, str) and dim.size:
            self.offers[self.op_number] = max(readings, self.offers.get(self.op_number, 1))
            self.doubts.append((dim, (self.op_number, piece), self.where()))

    def choice(self) -> int:
        """Which reading of the operation at hand is to be used."""
        return self.choices.get(self.op_number, 0)

    def where(self) -> str:
        return f"{self.path or 'the network itself'} ({self.op})"

    def cost(self, kind: str, dims: tuple[Dim, ...], sizes: tuple[int, ...], constant: int) -> None:
        """Note multiply-adds: the fixed dimensions go into the constant."""
        axes = []
        for dim, size in zip(dims, sizes, strict=True):
            if isinstance(dim, str):
                constant *= size
            else:
                axes.append(dim)
        self.costs.append(Cost(self.path, kind, tuple(axes), constant))
