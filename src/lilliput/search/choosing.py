"""Which members of a population go on: to the next rung, and to the user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lilliput.search.architectures import spread
from lilliput.search.members import Goals, Member, Outcome
from lilliput.search.survival import hypervolume, non_dominated, standing

BEYOND = 1.1
"""Corner of the box that delivered networks are chosen in, the front itself lying in 0..1."""


def spread_by_loss(members: Sequence[Member], count: int) -> list[Member]:
    ordered = {str(m.number): m for m in sorted(members, key=lambda m: m.outcome.values)}
    return [ordered[name] for name in spread(list(ordered), count)] if count else []


def best(members: Sequence[Member], goals: Goals, count: int) -> list[Member]:
    """By rank, and within a rank by the room around."""
    if not members:
        return []
    values = np.array([m.outcome.values for m in members]).reshape(-1, len(goals))
    found = standing(values)
    places = sorted(
        range(len(members)), key=lambda n: (found.ranks[n], -found.crowding[n], members[n].number)
    )
    return [members[place] for place in places[:count]]


def with_loss(member: Member, loss: float) -> Member:
    outcome = Outcome((loss, *member.outcome.values[1:]), member.outcome.violation)
    return Member(member.number, member.generation, member.genome, outcome)


def worth_delivering(members: Sequence[Member], goals: Goals, count: int) -> list[Member]:
    """Of the front of what is left, those that together dominate most; the cheapest first.

    One by one, each adds most to the hypervolume of those before it: the first is the knee. The
    box ends just beyond the front, so that what is hardly cheaper than the original adds little.
    """
    values = np.array([m.outcome.values for m in members]).reshape(-1, len(goals))
    left = non_dominated(values)
    if not left:
        return []
    low, high = values[left].min(0), values[left].max(0)
    shares = (values - low) / np.maximum(high - low, 1e-12)
    chosen: list[int] = []
    while left and len(chosen) < count:
        gains = [hypervolume(shares[[*chosen, place]], [BEYOND] * len(goals)) for place in left]
        chosen.append(left.pop(int(np.argmax(gains))))
    found = [members[place] for place in chosen]
    return sorted(found, key=lambda m: (m.outcome.values[1:], m.number))
