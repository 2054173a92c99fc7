"""Make a network narrower until a goal is met, in several small cuts.

How many channels each group keeps is settled once, in closed form (or by measuring, for a goal in
milliseconds). Which ones go is decided anew in each round, from the scores of the network as it
is by then, with its batch-norm statistics taken again after every cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lilliput.errors import Refused
from lilliput.network import Network
from lilliput.prune.allocation import Allocation, Policy, allocate
from lilliput.prune.analysis import Analysis, Member
from lilliput.prune.cutting import CutDiffers, cut
from lilliput.prune.groups import analyse
from lilliput.prune.importance import Scores
from lilliput.prune.protect import protected_classes

Score = Callable[[Network, Analysis], Scores]
Repair = Callable[[Network], Network]
Note = Callable[..., None]

_RETRIES = 4
"""How often a group whose cut proved wrong is left alone and the rest allocated anew."""


@dataclass(frozen=True)
class Goal:
    """What to reach; exactly one is set.

    `ratio` is the share of channels that go, 0..1; `max_latency_ms` is judged by a measurement.
    """

    ratio: float | None = None
    max_macs: float | None = None
    max_params: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in vars(self).values()) != 1:
            raise ValueError("a goal is exactly one of ratio, macs, params and latency")


@dataclass(frozen=True)
class Narrower:
    """Settings and functions that `narrow` works with.

    `score` rates classes; `repair` re-estimates batch norms; `measure_ms` times a network, for a
    goal in milliseconds; `note` is told about every cut.
    """

    score: Score
    policy: Policy
    repair: Repair = lambda network: network
    measure_ms: Callable[[Network], float] | None = None
    protect: Sequence[str] = ()
    rounds: int = 1
    note: Note = lambda _event, **_facts: None


def narrow(network: Network, goal: Goal, how: Narrower) -> Network:
    """The network with channels cut until the goal is met.

    Args:
        network: Left as it is.
        goal: What to reach.
        how: By which scores, under which policy, in how many rounds.

    Raises:
        Refused: The goal cannot be reached (says what can), a glob of `protect` matches nothing,
            or nothing can be cut.
    """
    avoided: set[tuple[Member, ...]] = set()
    for _ in range(_RETRIES):
        try:
            return _narrow(network, goal, how, avoided)
        except CutDiffers as error:
            avoided |= {group.members for group in error.groups}
            how.note("cut refused", groups=[g.name for g in error.groups], why=str(error))
    return _narrow(network, goal, how, avoided)


def _narrow(
    network: Network, goal: Goal, how: Narrower, avoided: set[tuple[Member, ...]]
) -> Network:
    analysis = analyse(network)
    if not analysis.prunable:
        why = "; ".join(r for group in analysis.frozen for r in group.reasons[:1])
        raise Refused(f"no channel of {network.name!r} can be cut: {why}")
    policy = replace(how.policy, protected=_untouchable(network, analysis, how, avoided))
    scores = how.score(network, analysis)
    plan = _planned(network, analysis, scores, goal, policy, how)
    kept = {group.members: count for group, count in plan.kept.items()}
    if how.rounds == 1:
        return _cut(network, analysis, plan.classes, how, 1)
    whole = {
        group.members: sum(n not in policy.protected for n in group.classes) for group in plan.kept
    }
    for number in range(1, how.rounds + 1):
        share = number / how.rounds
        wanted = {m: round(whole[m] + (count - whole[m]) * share) for m, count in kept.items()}
        classes = _lowest(network, analysis, scores, wanted, how, avoided)
        network = _cut(network, analysis, classes, how, number)
        if number < how.rounds:
            analysis = analyse(network)
            scores = how.score(network, analysis)
    return network


def _untouchable(
    network: Network, analysis: Analysis, how: Narrower, avoided: set[tuple[Member, ...]]
) -> frozenset[int]:
    protected = protected_classes(network, analysis, how.protect)
    return protected | {n for g in analysis.groups if g.members in avoided for n in g.classes}


def _planned(
    network: Network,
    analysis: Analysis,
    scores: Scores,
    goal: Goal,
    policy: Policy,
    how: Narrower,
) -> Allocation:
    if goal.max_latency_ms is None:
        return allocate(
            analysis,
            scores,
            policy,
            ratio=goal.ratio,
            max_macs=goal.max_macs,
            max_params=goal.max_params,
        )
    if how.measure_ms is None:
        raise Refused("a goal in milliseconds needs a target that can be measured")
    return _within_latency(network, analysis, scores, goal.max_latency_ms, policy, how)


def _within_latency(
    network: Network,
    analysis: Analysis,
    scores: Scores,
    limit_ms: float,
    policy: Policy,
    how: Narrower,
) -> Allocation:
    """Bisection over the share of channels that go; each trial is measured on the target."""
    measure = how.measure_ms
    assert measure is not None
    seen: dict[tuple[int, ...], float] = {}

    def at(ratio: float) -> tuple[Allocation, float]:
        plan = allocate(analysis, scores, policy, ratio=ratio)
        if plan.classes not in seen:
            seen[plan.classes] = measure(cut(network, analysis, plan.classes, verify=False))
            how.note("latency tried", ratio=ratio, ms=seen[plan.classes])
        return plan, seen[plan.classes]

    best, least_ms = at(1.0)
    if least_ms > limit_ms:
        raise Refused(
            f"{limit_ms:g} ms cannot be reached by cutting channels: the narrowest network takes "
            f"{least_ms:.3g} ms",
            hint="remove blocks too (`prune_blocks`), quantize, or ask for more time",
        )
    low, high = 0.0, 1.0
    for _ in range(6):
        middle = (low + high) / 2
        plan, milliseconds = at(middle)
        if milliseconds <= limit_ms:
            best, high = plan, middle
        else:
            low = middle
    return best


def _lowest(
    network: Network,
    analysis: Analysis,
    scores: Scores,
    wanted: Mapping[tuple[Member, ...], int],
    how: Narrower,
    avoided: set[tuple[Member, ...]],
) -> tuple[int, ...]:
    """In each group the classes of the lowest scores, so that as many stay as are wanted."""
    protected = _untouchable(network, analysis, how, avoided)
    classes: list[int] = []
    for group in analysis.prunable:
        free = [n for n in group.classes if n not in protected]
        surplus = len(free) - wanted.get(group.members, len(free))
        classes += sorted(free, key=lambda n: (scores[n], n))[: max(surplus, 0)]
    return tuple(sorted(classes))


def _cut(
    network: Network, analysis: Analysis, classes: Sequence[int], how: Narrower, number: int
) -> Network:
    smaller = cut(network, analysis, classes)
    how.note(
        "channels cut",
        round=number,
        classes=len(classes),
        macs=analysis.macs(classes),
        params=analysis.params(classes),
        widths=widths(analysis, classes),
    )
    return how.repair(smaller)


def widths(analysis: Analysis, gone: Sequence[int]) -> dict[str, Any]:
    """{layer: outputs left} of every convolution and linear map that the cut narrows."""
    keep = analysis.keeping(gone)
    return {
        layer.path or str(layer.weight): int(keep[layer.outputs].sum())
        for layer in analysis.layers
        if layer.outputs is not None and not keep[layer.outputs].all()
    }
