"""How many channels each group loses, so that a goal is met: in closed form, nothing is run.

Source: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021, section 3.
Differs: a score counts as much more as its group has less left, where the paper's is divided by
what is left alone; so groups are still compared by what their channels do and cost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lilliput.errors import Refused
from lilliput.prune.analysis import Analysis, Group
from lilliput.prune.importance import Scores

RoundWidth = Callable[[int, str], int]
"""(width, kind of layer) → the width that the target runs best in its place; of a grouped
convolution, the width of each of its groups."""

Normalise = Literal["mean", "macs", "none"]


def multiples_of(number: int) -> RoundWidth:
    """Widths rounded up to multiples: a layer never loses more than was asked for."""
    return lambda width, _kind: -(-width // number) * number


@dataclass(frozen=True)
class Policy:
    """What any allocation obeys.

    `protected` classes stay; each group keeps at least `min_width` classes. `scope` ranks all
    classes together ("global") or takes the same share of every group ("local"). Scores of
    different groups are made comparable by `normalise`: divided by the group's mean, or by the
    multiply-adds that the class takes with it, or not at all. Ranked together, each score is
    multiplied by its group's sum over what the dearer ones and itself come to: scores say what one
    channel does while the others are there, and no group is worn through. `round_width` is the
    width grid.
    """

    scope: Literal["global", "local"] = "global"
    normalise: Normalise = "macs"
    min_width: int = 1
    protected: frozenset[int] = frozenset()
    round_width: RoundWidth | None = None


@dataclass(frozen=True)
class Allocation:
    """Classes that go, in `classes`, and how many of each group stay (frozen ones not counted)."""

    classes: tuple[int, ...]
    kept: Mapping[Group, int] = field(default_factory=dict)


def allocate(
    analysis: Analysis,
    scores: Scores,
    policy: Policy | None = None,
    *,
    ratio: float | None = None,
    max_macs: float | None = None,
    max_params: float | None = None,
) -> Allocation:
    """Choose classes to cut; exactly one goal is given.

    Args:
        analysis: Of the network.
        scores: (class_count,), larger is dearer.
        policy: What to obey.
        ratio: Share of all classes that can go, 0..1; of each group if the scope is local.
        max_macs: Multiply-adds of the cut network, at most.
        max_params: Parameters of the cut network, at most.

    Raises:
        Refused: Even the smallest network is too large; says what can be reached. # users-ask 35
    """
    chooser = _Chooser(analysis, scores, policy or Policy())
    if ratio is not None:
        return chooser.first(chooser.count_of(ratio))
    if max_macs is not None:
        return _least(chooser, max_macs, analysis.macs, "multiply-adds")
    if max_params is None:
        raise ValueError("allocate needs a goal: ratio, max_macs or max_params")
    return _least(chooser, max_params, analysis.params, "parameters")


def _least(
    chooser: _Chooser, goal: float, cost: Callable[[Collection[int]], int], unit: str
) -> Allocation:
    """The shortest prefix of the order that meets the goal, by bisection."""

    def met(count: int) -> bool:
        return cost(chooser.first(count).classes) <= goal

    low, high = 0, len(chooser.order)
    if not met(high):
        least = cost(chooser.first(high).classes)
        raise Refused(
            f"{goal:,.0f} {unit} cannot be reached by cutting channels: the least is {least:,}, "
            f"from {cost(()):,}",
            hint="ask for more, protect fewer layers, lower `min_width`, or remove blocks too",
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if met(middle) else (middle + 1, high)
    # rounding of widths makes the cost uneven here and there
    while not met(low):
        low += 1
    return chooser.refilled(chooser.first(low), lambda classes: cost(classes) <= goal)


def _scarcity(ascending: Scores) -> Scores:
    """The sum of all scores over the sum of those not lower: 1 for the first that goes."""
    left = np.cumsum(ascending[::-1])[::-1]
    return np.asarray(np.divide(left[0], left, out=np.ones_like(left), where=left > 0))


class _Chooser:
    """The order in which classes go, and what a prefix of it comes to on the width grid."""

    def __init__(self, analysis: Analysis, scores: Scores, policy: Policy) -> None:
        self.analysis, self.policy, self.scores = analysis, policy, scores
        self.ranked: dict[Group, list[int]] = {}
        for group in analysis.prunable:
            free = [number for number in group.classes if number not in policy.protected]
            if free:
                self.ranked[group] = sorted(free, key=lambda number: (scores[number], number))
        keyed = [key for group in self.ranked for key in self._keyed(group, scores)]
        keyed.sort()
        self.keys = [key for key, _ in keyed]
        self.order = [number for _, number in keyed]
        self.grid = None if policy.round_width is None else _Grid(self, policy.round_width)

    def least(self, group: Group) -> int:
        """How many of the group's free classes have to stay."""
        whole = len(self.ranked[group])
        others = group.width - whole
        return min(max(max(self.policy.min_width, 1) - others, 0), whole)

    def _keyed(self, group: Group, scores: Scores) -> Iterator[tuple[float, int]]:
        """Sorting keys of all classes that may go; the group's dearest ones are left out."""
        ranked = self.ranked[group]
        values = self._comparable(group, scores[ranked]) * _scarcity(scores[ranked])
        for place, number in enumerate(ranked[: len(ranked) - self.least(group)]):
            share = (place + 1) / len(ranked)
            yield (share if self.policy.scope == "local" else float(values[place])), number

    def _comparable(self, group: Group, scores: Scores) -> Scores:
        if self.policy.normalise == "mean":
            return scores / max(float(scores.mean()), 1e-30)
        if self.policy.normalise == "macs":
            saved = self.analysis.macs() - self.analysis.macs(group.classes[:1])
            return scores / max(saved, 1)
        return scores

    def count_of(self, ratio: float) -> int:
        """Length of the prefix that takes this share of all free classes (of each, if local)."""
        if self.policy.scope == "local":
            return bisect_right(self.keys, ratio + 1e-9)
        free = sum(len(ranked) for ranked in self.ranked.values())
        return min(round(ratio * free), len(self.order))

    def first(self, count: int) -> Allocation:
        """The first `count` classes of the order go, then every group moves to the width grid."""
        going = set(self.order[:count])
        kept = {g: sum(n not in going for n in ranked) for g, ranked in self.ranked.items()}
        if self.grid is not None:
            for group in self.ranked:
                kept[group] = self.grid.nearest(group, kept)
        return Allocation(self.gone(kept), kept)

    def gone(self, kept: Mapping[Group, int]) -> tuple[int, ...]:
        """The cheapest classes of each group, so that these counts stay."""
        return tuple(
            sorted(
                number
                for group, ranked in self.ranked.items()
                for number in ranked[: len(ranked) - kept[group]]
            )
        )

    def refilled(self, plan: Allocation, met: Callable[[Collection[int]], bool]) -> Allocation:
        """What the width grid left of the goal is given back, step by step of the grid.

        The step that brings back the highest scores per multiply-add goes first.
        """
        if self.grid is None:
            return plan
        kept, macs = dict(plan.kept), self.analysis.macs(plan.classes)
        open_ = [group for group, ranked in self.ranked.items() if kept[group] < len(ranked)]
        while open_:
            steps = []
            for group in open_:
                wider = {**kept, group: self.grid.above(group, kept)}
                ranked = self.ranked[group]
                back = ranked[len(ranked) - wider[group] : len(ranked) - kept[group]]
                classes = self.gone(wider)
                price = max(self.analysis.macs(classes) - macs, 1)
                if met(classes):
                    steps.append((float(self.scores[back].sum()) / price, group, wider[group]))
            if not steps:
                break
            _, best, count = max(steps, key=lambda step: step[0])
            kept[best] = count
            macs = self.analysis.macs(self.gone(kept))
            open_ = [g for _, g, _ in steps if kept[g] < len(self.ranked[g])]
        return Allocation(self.gone(kept), kept)


@dataclass(frozen=True)
class _Face:
    """Channels of a layer whose number decides how fast it is; in `groups` equal parts."""

    classes: NDArray[np.int64]
    kind: str
    macs: float
    groups: int


def _faces(analysis: Analysis) -> Iterator[_Face]:
    """What every layer gives; of grouped convolutions what they read too, for their kernels want
    whole blocks of channels on both sides.
    """
    for layer in analysis.layers:
        sides = [layer.outputs, layer.inputs if layer.groups > 1 else None]
        for classes in sides:
            if classes is not None:
                yield _Face(classes, layer.kind, max(layer.macs, 1.0), layer.groups)


class _Grid:
    """Widths of layers as groups shrink, and the counts that put most of the work on the grid."""

    def __init__(self, chooser: _Chooser, round_width: RoundWidth) -> None:
        self.chooser, self.round_width = chooser, round_width
        self.faces = list(_faces(chooser.analysis))
        self.held: dict[Group, list[tuple[int, int]]] = {group: [] for group in chooser.ranked}
        self.holders: list[list[tuple[Group, int]]] = [[] for _ in self.faces]
        for place, face in enumerate(self.faces):
            known = face.classes[face.classes >= 0]
            counts = np.bincount(known, minlength=chooser.analysis.class_count)
            for group, ranked in chooser.ranked.items():
                if counts[ranked[0]]:
                    self.held[group].append((place, int(counts[ranked[0]])))
                    self.holders[place].append((group, int(counts[ranked[0]])))

    def width(self, place: int, kept: Mapping[Group, int]) -> int:
        """Channels of a face when each group keeps so many of its free classes."""
        lost = sum(
            (len(self.chooser.ranked[group]) - kept[group]) * each
            for group, each in self.holders[place]
        )
        return len(self.faces[place].classes) - lost

    def nearest(self, group: Group, kept: Mapping[Group, int]) -> int:
        """How many classes the group should keep instead; a group that loses none is left so."""
        whole = len(self.chooser.ranked[group])
        if kept[group] == whole:
            return whole
        widths = [(place, each, self.width(place, kept)) for place, each in self.held[group]]
        moves = {0}
        for place, each, width in widths:
            moves.add(-((width - self._rounded(place, width)) // each))
        least = self.chooser.least(group)
        moves = {min(max(move, least - kept[group]), whole - kept[group]) for move in moves}
        return kept[group] + max(
            moves, key=lambda move: (self._work(widths, move), -abs(move), move)
        )

    def above(self, group: Group, kept: Mapping[Group, int]) -> int:
        """The next larger count that is as good on the grid as its neighbours."""
        whole = len(self.chooser.ranked[group])
        return next(
            count
            for count in range(kept[group] + 1, whole + 1)
            if self.nearest(group, {**kept, group: count}) == count
        )

    def _rounded(self, place: int, width: int) -> int:
        face = self.faces[place]
        return self.round_width(width // face.groups, face.kind) * face.groups

    def _work(self, widths: list[tuple[int, int, int]], move: int) -> float:
        """Multiply-adds of the layers that are on the grid, or whole, after the move."""
        total = 0.0
        for place, each, width in widths:
            moved = width + move * each
            whole = moved == len(self.faces[place].classes)
            if whole or (moved > 0 and self._rounded(place, moved) == moved):
                total += self.faces[place].macs
        return total
