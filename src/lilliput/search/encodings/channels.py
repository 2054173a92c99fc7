"""Groups of channels that may go, and starting points that both encodings of channels share."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from lilliput.errors import Refused
from lilliput.prune.allocation import Policy, allocate
from lilliput.search.genomes import Ground

SCOPES: tuple[Literal["local", "global"], ...] = ("local", "global")

SOLVED = ("macs", "params")
"""Costs whose limit a cut is solved for in closed form."""

KEPT = tuple(round(0.1 * n, 1) for n in range(9, 0, -1))
"""Shares of channels that starting points keep."""


@dataclass(frozen=True)
class Slice:
    """The genes of one group. `classes` are the dearest first; `least` of them must stay."""

    name: str
    classes: tuple[int, ...]
    least: int
    others: int

    def __len__(self) -> int:
        return len(self.classes)


def slices_of(ground: Ground) -> list[Slice]:
    """Every group of which something may go.

    A group with channels that stay anyway may lose all the others.

    Raises:
        Refused: There is none.
    """
    found = []
    for group in ground.analysis.prunable:
        free = [number for number in group.classes if number not in ground.protected]
        if free:
            ranked = sorted(free, key=lambda number: (-ground.scores[number], number))
            others = group.width - len(free)
            found.append(Slice(group.name, tuple(ranked), 0 if others else 1, others))
    if not found:
        raise Refused(
            f"no channel of {ground.network.name!r} may go",
            hint="protect fewer layers; `lilliput inspect` says what is frozen and why",
        )
    return found


def starting_points(ground: Ground) -> list[frozenset[int]]:
    """Sets of classes that go: none; equal shares of each group; shares of all ranked together.

    Last come the cuts to the limits on multiply-adds and parameters, as `prune_channels` makes
    them: what evolution finds within a limit is no worse than those.
    """
    goals: list[dict[str, float]] = [{"ratio": 1 - share} for share in KEPT]
    goals += [{f"max_{cost}": ground.limits[cost]} for cost in SOLVED if cost in ground.limits]
    policies = [Policy(scope, protected=ground.protected) for scope in SCOPES]
    found = [frozenset[int]()]
    for goal, policy in product(goals, policies):
        with contextlib.suppress(Refused):  # No cut is within that limit.
            plan = allocate(ground.analysis, ground.scores, policy, **goal)
            found.append(frozenset(plan.classes))
    return list(dict.fromkeys(found))


def ranks_of(slices: list[Slice]) -> np.ndarray:
    """(length,), 0..1: how dear each channel is within its group, 1 the dearest."""
    return np.concatenate([1 - np.arange(len(part)) / max(len(part) - 1, 1) for part in slices])
