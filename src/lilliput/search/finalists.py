"""Which screened architectures deserve a full training, one decision at a time.

A short training loses more than a full one, by a factor that depends on how long the full one is
and differs from network to network. The factor starts from a prior and is corrected by each full
training that finishes, so that the second finalist is chosen better than the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lilliput.search.pace import Pace

RECOVERY_EXPONENT = 0.31
"""Of the prior: a training n times as long as the short one leaves n ** -0.31 of its loss. Seen on
ResNet-20 and CIFAR-10: 0.20 and 0.22 at 60 times, but 0.43 at 117 times for a deeper cut."""

MOST_RECOVERY = 0.15
"""Share that is left after the longest of trainings."""


@dataclass(frozen=True)
class Screened:
    """An architecture after the cheap rung.

    `cost` is what the user wants small (measured milliseconds as a rule), `drop` the loss of the
    metric against the original after the short training, `capacity` its multiply-adds, `pace`
    how fast it trained, `left` the share of the drop that a full training should leave.
    """

    key: str
    cost: float
    capacity: float
    drop: float = float("nan")
    pace: Pace | None = None
    left: float = MOST_RECOVERY

    @property
    def expected_drop(self) -> float:
        """After a full training, before any has finished."""
        return self.drop * self.left


def left_after(times: float) -> float:
    """The share of a short training's loss that is left after one so many times as long."""
    return max(float(max(times, 1.0) ** -RECOVERY_EXPONENT), MOST_RECOVERY)


def undominated(architectures: Iterable[Screened]) -> list[Screened]:
    """Those that no other beats: something as fast with more capacity makes one pointless.

    Of two equals the first stays. The result is sorted by cost, fastest first.
    """
    kept: list[Screened] = []
    best_capacity = float("-inf")
    for candidate in sorted(architectures, key=lambda a: (a.cost, -a.capacity)):
        if candidate.capacity > best_capacity:
            kept.append(candidate)
            best_capacity = candidate.capacity
    return kept


def correction(screened: Sequence[Screened], final_drops: dict[str, float]) -> float:
    """Mean of final drops over expected ones, the expectation itself counting as one case."""
    observed = [
        max(final_drops[architecture.key], 0.0) / architecture.expected_drop
        for architecture in screened
        if architecture.key in final_drops and architecture.drop > 0.05
    ]
    return (1.0 + sum(observed)) / (1 + len(observed))


def next_to_screen(fastest_first: Sequence[str], hopeful: Mapping[str, bool]) -> str | None:
    """The architecture to screen next, or None when all are.

    The deeper a cut, the more it loses, as a rule. So the fastest of the hopeful ones is sought by
    halving; then those nearest to it have their turn, for chance has a say in a short training,
    and what full trainings teach moves the edge.

    Args:
        fastest_first: Keys.
        hopeful: {key: whether a full training should bring it within the limit} of those screened.
    """
    known = [hopeful.get(key) for key in fastest_first]
    edge = next((n for n, found in enumerate(known) if found), len(known))
    slowest_hopeless = max((n for n in range(edge) if known[n] is False), default=-1)
    between = range(slowest_hopeless + 1, edge)
    if between:
        return fastest_first[between[len(between) // 2]]
    left = [n for n, found in enumerate(known) if found is None]
    return fastest_first[min(left, key=lambda n: abs(n - edge))] if left else None


def next_finalist(
    screened: Sequence[Screened], final_drops: dict[str, float], allowed_drop: float | None
) -> Screened | None:
    """The architecture to train next, or None when no other could be better.

    With an allowed drop: the fastest that is predicted to keep it; if none is, the one predicted
    to come closest. What is slower than a finalist that kept the limit is never worth training.
    Without one: the untrained architecture that splits the widest gap of cost.
    """
    left = [a for a in screened if a.key not in final_drops]
    if allowed_drop is None:
        return _widest_gap(left, [a for a in screened if a.key in final_drops])
    factor = correction(screened, final_drops)
    kept = [a.cost for a in screened if final_drops.get(a.key, float("inf")) <= allowed_drop]
    failed = [a.drop for a in screened if final_drops.get(a.key, 0.0) > allowed_drop]
    useful = [
        a for a in left if (not kept or a.cost < min(kept)) and (not failed or a.drop < min(failed))
    ]
    hopeful = [a for a in useful if a.expected_drop * factor <= allowed_drop]
    if hopeful:
        return min(hopeful, key=lambda a: a.cost)
    return min(useful, key=lambda a: a.drop) if useful else None


def _widest_gap(left: Sequence[Screened], done: Sequence[Screened]) -> Screened | None:
    if not left:
        return None
    if not done:
        return sorted(left, key=lambda a: a.cost)[len(left) // 2]
    return max(left, key=lambda a: min(abs(a.cost - other.cost) for other in done))
