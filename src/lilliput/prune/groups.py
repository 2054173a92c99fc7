"""From the notes of one run to coupled classes, and from doubts to proofs.

A class is a set of indices, over dimensions of parameters and buffers, that can only go together.
Couplings are followed index by index; equal index does not mean equal channel (a zero-padded
shortcut ties channel k of one stage to channel k + pad of the next). Where the number of channels
may be a constant in the user's Python (pads, slices, views) no rule can know, so a trial decides:
`lilliput.prune.trial` cuts and compares with the same channels zeroed.

Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, section 3 (groups).
Differs: couplings are between indices, not layers; a group is found from one run under a dispatch
mode instead of from autograd's graph; every group is proven by a trial.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lilliput.network import Network
from lilliput.prune.analysis import Analysis, Group, Layer, Member, OpCost, Slot, Stored
from lilliput.prune.components import components
from lilliput.prune.labels import Dim, Ledger
from lilliput.prune.trace import trace
from lilliput.prune.trial import Suspect, disproved

_READINGS = 6
"""How often the run is repeated with other readings of doubtful operations before they freeze."""


def analyse(network: Network, *, prove: bool = True) -> Analysis:
    """Coupled channel groups of a network, each one proven by a trial cut.

    Args:
        network: Left as it is; run a few times on random inputs of its declared shapes.
        prove: Without it, couplings that hang on constants in the user's code are believed.

    Raises:
        LilliputError: The network does not run on inputs of its own declared shapes.
    """
    choices: dict[int, int] = {}
    best: tuple[int, Analysis] | None = None
    for _ in range(_READINGS):
        ledger = trace(network, choices=choices)
        draft = _Draft(network, ledger)
        failed = disproved(network, draft.analysis(), draft.suspects()) if prove else []
        analysis = draft.analysis(failed)
        free = sum(len(group.classes) for group in analysis.groups)
        if best is None or free > best[0]:
            best = (free, analysis)
        doubtful = {op for suspect in failed for op, _ in suspect.doubts}
        open_ = [op for op in doubtful if choices.get(op, 0) + 1 < ledger.offers.get(op, 1)]
        if not open_:
            break
        choices |= {op: choices.get(op, 0) + 1 for op in open_}
    assert best is not None
    return best[1]


class _Draft:
    """Classes and groups of one ledger, before and after trials."""

    def __init__(self, network: Network, ledger: Ledger) -> None:
        self.ledger = ledger
        self.batch = int(network.example()[0].shape[0]) if network.inputs else 1
        roots = components(ledger.size, ledger.ties)
        self._number(roots)
        self._freeze()
        self._doubts = self._collect_doubts()

    def _number(self, roots: NDArray[np.int64]) -> None:
        """Give each component that touches a parameter a number, in order of appearance."""
        ledger = self.ledger
        tracked = np.zeros(ledger.size, dtype=bool)
        for seed in ledger.seeds:
            if seed.name in ledger.first_use:
                tracked[seed.starts[0] if seed.starts else 0 :][: sum(seed.shape)] = True
        for atoms in ledger.untracked:
            tracked[atoms] = False
        numbers = np.full(ledger.size, -1, dtype=np.int64)
        found, first = np.unique(roots[tracked], return_index=True)
        rank = np.empty(len(found), dtype=np.int64)
        rank[np.argsort(first)] = np.arange(len(found))
        numbers[found] = rank
        self.count = len(found)
        self.class_of = numbers[roots]
        reads = np.zeros(ledger.size, dtype=bool)
        for atoms in ledger.readers:
            reads[atoms] = True
        self.slots: list[Slot] = []
        self.tensors: list[Stored] = []
        for seed in ledger.seeds:
            places = []
            for dim, (start, size) in enumerate(zip(seed.starts, seed.shape, strict=True)):
                atoms = np.arange(start, start + size)
                classes = np.where(tracked[atoms], self.class_of[atoms], -1)
                places.append(len(self.slots))
                self.slots.append(Slot(seed.name, dim, classes, reads=bool(reads[atoms].any())))
            kept = seed.name in ledger.kept_by_mask
            scale = seed.name in ledger.norm_scales
            self.tensors.append(
                Stored(seed.name, seed.shape, tuple(places), seed.trainable, kept, scale)
            )

    def _freeze(self) -> None:
        self.reasons = [""] * self.count
        for atoms, why in self.ledger.freezes:
            self._blame(self.class_of[atoms], why)
        for slot in self.slots:
            if slot.size and (slot.classes == slot.classes[0]).all():
                self._blame(slot.classes[:1], f"{slot.tensor}: it has no other channel")

    def _blame(self, classes: NDArray[np.int64], why: str) -> None:
        for number in np.unique(classes):
            if number >= 0 and not self.reasons[number]:
                self.reasons[number] = why

    def _collect_doubts(self) -> list[frozenset[tuple[int, int]]]:
        doubts: list[set[tuple[int, int]]] = [set() for _ in range(self.count)]
        for atoms, doubt, _ in self.ledger.doubts:
            for number in np.unique(self.class_of[atoms]):
                if number >= 0:
                    doubts[number].add(doubt)
        return [frozenset(found) for found in doubts]

    @cached_property
    def _signatures(self) -> list[tuple[tuple[int, int], ...]]:
        """For each class the slots it touches, with the number of indices in each."""
        touched: list[list[tuple[int, int]]] = [[] for _ in range(self.count)]
        for n, slot in enumerate(self.slots):
            classes, counts = np.unique(slot.classes, return_counts=True)
            for number, count in zip(classes.tolist(), counts.tolist(), strict=True):
                if number >= 0:
                    touched[number].append((n, count))
        return [tuple(slots) for slots in touched]

    def suspects(self) -> list[Suspect]:
        """Free classes sorted by signature and doubts: what holds for one holds for its like."""
        kinds: dict[object, list[int]] = defaultdict(list)
        for number, signature in enumerate(self._signatures):
            if not self.reasons[number]:
                kinds[signature, self._doubts[number]].append(number)
        return [Suspect(tuple(numbers), self._doubts[numbers[0]]) for numbers in kinds.values()]

    def analysis(self, failed: Iterable[Suspect] = ()) -> Analysis:
        """The result, with the classes of failed trials frozen."""
        reasons = list(self.reasons)
        for suspect in failed:
            for number in suspect.classes:
                reasons[number] = self._why(suspect)
        return Analysis(
            tuple(self.slots),
            tuple(self.tensors),
            self._groups(reasons),
            tuple(reasons),
            tuple(self._costs()),
            tuple(self._layers()),
            tuple(t.name for t in self.tensors if t.name not in self.ledger.first_use and t.shape),
        )

    def _why(self, suspect: Suspect) -> str:
        places = {doubt: where for _, doubt, where in self.ledger.doubts}
        first = min(suspect.doubts, default=None)
        where = "the network itself" if first is None else places[first]
        return (
            f"{where}: the code seems to hold the number of channels as a constant "
            f"(a trial cut {suspect.verdict})"
        )

    def _groups(self, reasons: list[str]) -> tuple[Group, ...]:
        alike: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for number, signature in enumerate(self._signatures):
            alike[signature].append(number)
        named: dict[str, int] = defaultdict(int)
        groups = []
        producers = self._producers()
        for signature, numbers in sorted(alike.items(), key=lambda item: self._when(item[0])):
            if all(self.slots[n].size == 1 for n, _ in signature):
                continue
            members = self._in_order(signature)
            name = producers.get(numbers[0]) or f"{members[0].layer or members[0].tensor} (inputs)"
            named[name] += 1
            if named[name] > 1:
                name = f"{name} #{named[name]}"
            frozen = tuple(number for number in numbers if reasons[number])
            groups.append(
                Group(
                    name,
                    tuple(number for number in numbers if not reasons[number]),
                    frozen,
                    tuple(dict.fromkeys(reasons[number] for number in frozen)),
                    members,
                )
            )
        return tuple(groups)

    def _producers(self) -> dict[int, str]:
        """For each class the first layer that gives it."""
        first: dict[int, str] = {}
        for layer in self._layers():
            if layer.outputs is not None:
                for number in np.unique(layer.outputs).tolist():
                    first.setdefault(number, layer.path or layer.weight or "")
        return first

    def _when(self, signature: tuple[tuple[int, int], ...]) -> int:
        return min(self._use(self.slots[n].tensor) for n, _ in signature)

    def _use(self, tensor: str) -> int:
        return self.ledger.first_use.get(tensor, self.ledger.op_number + 1)

    def _in_order(self, signature: tuple[tuple[int, int], ...]) -> tuple[Member, ...]:
        members = [Member(self.slots[n].tensor, self.slots[n].dim, count) for n, count in signature]
        return tuple(sorted(members, key=lambda member: self._use(member.tensor)))

    def _costs(self) -> Iterable[OpCost]:
        for cost in self.ledger.costs:
            axes = tuple(self.class_of[axis] for axis in cost.axes)
            yield OpCost(cost.path, cost.kind, axes, cost.constant / self.batch)

    def _layers(self) -> Iterable[Layer]:
        for note in self.ledger.layers:
            inputs, outputs = self._classes(note.inputs), self._classes(note.outputs)
            macs = note.macs / self.batch
            yield Layer(note.path, note.kind, macs, inputs, outputs, note.weight, note.groups)

    def _classes(self, dim: Dim) -> NDArray[np.int64] | None:
        return None if isinstance(dim, str) else self.class_of[dim]
