"""Coupled channels: classes that can only go together, and groups of classes of one kind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Slot:
    """One dimension of one parameter or buffer. `classes` is (size,): the class of each index, or
    -1 where the index is no channel (the taps of a kernel). `reads`: a weight sums over incoming
    channels by it.
    """

    tensor: str
    dim: int
    classes: NDArray[np.int64]
    reads: bool = False

    @property
    def size(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Stored:
    """A parameter or buffer, by shape. `slots` are the numbers of its dimensions' slots.

    `kept_by_mask`: zeroing a channel leaves it as it is (running statistics). `norm_scale`: it
    is the scale of a batch norm.
    """

    name: str
    shape: tuple[int, ...]
    slots: tuple[int, ...]
    trainable: bool
    kept_by_mask: bool
    norm_scale: bool = False


@dataclass(frozen=True)
class Layer:
    """A convolution or linear map. `inputs` and `outputs` hold the class of each channel, -1 for
    one that is not tied to any parameter; None where it reads or gives something else.
    `kind` is "conv3x3" (any kernel larger than 1×1), "conv1x1", "depthwise", "grouped", "linear"
    or "embedding"; `macs` are those for one example, `groups` those of a grouped
    convolution.
    """

    path: str
    kind: str
    macs: float
    inputs: NDArray[np.int64] | None
    outputs: NDArray[np.int64] | None
    weight: str | None
    groups: int = 1


@dataclass(frozen=True)
class OpCost:
    """Multiply-adds of one operation for one example: `constant` × the widths of `axes`."""

    path: str
    kind: str
    axes: tuple[NDArray[np.int64], ...]
    constant: float


@dataclass(frozen=True)
class Member:
    """Where a group's classes lie: each class holds `count` indices of this dimension."""

    tensor: str
    dim: int
    count: int

    @property
    def layer(self) -> str:
        """The module that owns the tensor."""
        return self.tensor.rpartition(".")[0]

    def __str__(self) -> str:
        each = f", {self.count} indices each" if self.count > 1 else ""
        return f"{self.tensor} (dim {self.dim}{each})"


@dataclass(frozen=True, eq=False)
class Group:
    """Coupled classes that touch the same dimensions of the same tensors.

    Groups are compared by identity; `members` are what is equal in the analysis of a cut network.
    `classes` may go; `frozen` are of the same kind and may not, for the `reasons`.
    """

    name: str
    classes: tuple[int, ...]
    frozen: tuple[int, ...]
    reasons: tuple[str, ...]
    members: tuple[Member, ...]

    @property
    def width(self) -> int:
        """Number of channels, frozen ones included."""
        return len(self.classes) + len(self.frozen)

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the modules that the group touches, each once."""
        return tuple(dict.fromkeys(member.layer for member in self.members))

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.classes)} of {self.width} channels can go"]
        lines.append(f"    in {', '.join(self.layers)}")
        lines += [f"    frozen, {reason}" for reason in self.reasons]
        return "\n".join(lines)


@dataclass(frozen=True)
class Analysis:
    """What can be cut from a network, what cannot and why, and what any cut would cost.

    `reasons` has one entry per class: empty where the class may go. `unused` names the tensors that
    the forward never reads; they stay as they are.
    """

    slots: tuple[Slot, ...]
    tensors: tuple[Stored, ...]
    groups: tuple[Group, ...]
    reasons: tuple[str, ...]
    costs: tuple[OpCost, ...]
    layers: tuple[Layer, ...]
    unused: tuple[str, ...] = ()

    @property
    def class_count(self) -> int:
        return len(self.reasons)

    @property
    def prunable(self) -> tuple[Group, ...]:
        """Groups with at least two channels, of which at least one can go."""
        return tuple(group for group in self.groups if group.classes and group.width > 1)

    @property
    def frozen(self) -> tuple[Group, ...]:
        """Groups in which nothing can go."""
        return tuple(group for group in self.groups if not group.classes)

    def group_of(self) -> Mapping[int, Group]:
        """The group of each class."""
        return {
            number: group for group in self.groups for number in (*group.classes, *group.frozen)
        }

    def keeping(self, gone: Collection[int] = ()) -> Mask:
        """A mask over the classes, (class_count + 1,); the last entry, for -1, always stays."""
        keep = np.ones(self.class_count + 1, dtype=bool)
        keep[list(gone)] = False
        return keep

    def macs(self, gone: Collection[int] = ()) -> int:
        """Multiply-adds for one example once these classes are gone; nothing is run."""
        return round(
            sum(op_macs(cost, keep) for keep in [self.keeping(gone)] for cost in self.costs)
        )

    def params(self, gone: Collection[int] = ()) -> int:
        """Trainable numbers once these classes are gone."""
        keep = self.keeping(gone)
        return sum(
            int(np.prod([keep[self.slots[n].classes].sum() for n in tensor.slots]))
            for tensor in self.tensors
            if tensor.trainable
        )

    def removed(self, gone: Collection[int]) -> Iterator[tuple[Slot, NDArray[np.int64]]]:
        """The indices that a cut takes from every dimension it touches."""
        keep = self.keeping(gone)
        for slot in self.slots:
            indices = np.flatnonzero(~keep[slot.classes])
            if len(indices):
                yield slot, indices

    def emptied(self, gone: Collection[int]) -> Slot | None:
        """A dimension that the cut would leave without any index, if there is one."""
        keep = self.keeping(gone)
        return next((s for s in self.slots if s.size and not keep[s.classes].any()), None)

    def __str__(self) -> str:
        prunable, frozen = self.prunable, [g for g in self.groups if g not in self.prunable]
        lines = [f"{len(prunable)} groups can be cut, {len(frozen)} are frozen"]
        lines += [str(group) for group in (*prunable, *frozen)]
        return "\n".join(lines)


def op_macs(cost: OpCost, keep: Mask) -> float:
    """Multiply-adds of one operation under a mask over classes."""
    total = cost.constant
    for axis in cost.axes:
        total *= int(keep[axis].sum())
    return total
