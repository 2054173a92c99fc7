"""How the next generation is made of the last one.

Sources: as in `lilliput.search.operators`; the shares of the paper's operators are those in the
code that its group published for ICCV 2019: 0.2 selection, 0.7 crossover, 0.1 mutation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lilliput.search.genomes import Encoding, Genome
from lilliput.search.members import Member
from lilliput.search.operators import exchanged, inverted, roulette, segment
from lilliput.search.survival import standing

SELECTED, CROSSED = 0.2, 0.9
"""Below the first a member is copied, below the second two are crossed, above it one mutates."""

PRESSURE = 1.0
"""The weight λ of what is saved, in the paper's fitness."""


class Breeder(Protocol):
    """`repeats`: a generation may hold genomes that were seen before, and replaces the last one."""

    repeats: bool

    def brood(
        self,
        members: Sequence[Member],
        encoding: Encoding[Any],
        count: int,
        rng: np.random.Generator,
    ) -> list[Genome]: ...


class Tournaments:
    """Parents win tournaments of two; their children are crossed, then mutated."""

    repeats = False

    def brood(
        self,
        members: Sequence[Member],
        encoding: Encoding[Any],
        count: int,
        rng: np.random.Generator,
    ) -> list[Genome]:
        sound = [m for m in members if not m.outcome.failed]
        if not sound:
            return [encoding.sample(rng) for _ in range(count)]
        order = _order(sound)
        children: list[Genome] = []
        while len(children) < count:
            one, other = (np.array(sound[_winner(order, rng)].genome) for _ in range(2))
            # A tenth is mutated alone: crossing equal parents makes nothing new.
            pair = encoding.crossover(one, other, rng) if rng.random() < 0.9 else (one, other)
            children += [encoding.mutate(child, rng) for child in pair]
        return children[:count]


def _order(members: Sequence[Member]) -> list[tuple[float, float, float]]:
    """Sorting keys, the smaller the better: violation, rank, crowding."""
    found = standing(np.array([m.outcome.values for m in members]))
    return [
        (max(m.outcome.violation, 0.0), float(rank), -float(room))
        for m, rank, room in zip(members, found.ranks, found.crowding, strict=True)
    ]


def _winner(order: Sequence[tuple[float, float, float]], rng: np.random.Generator) -> int:
    one, other = (int(n) for n in rng.integers(0, len(order), 2))
    return one if order[one] <= order[other] else other


class Chance:
    """Random genomes, whatever came before: what any search has to beat."""

    repeats = False

    def brood(
        self,
        members: Sequence[Member],  # noqa: ARG002
        encoding: Encoding[Any],
        count: int,
        rng: np.random.Generator,
    ) -> list[Genome]:
        return [encoding.sample(rng) for _ in range(count)]


class Paper:
    """The elite, then copies, exchanged segments and inverted segments of roulette's choice."""

    repeats = True

    def brood(
        self,
        members: Sequence[Member],
        encoding: Encoding[Any],
        count: int,
        rng: np.random.Generator,
    ) -> list[Genome]:
        values = [fitness(member) for member in members]
        genomes = [np.array(member.genome) for member in members]
        children = [genomes[int(np.argmax(values))]]
        while len(children) < count:
            drawn = rng.random()
            one = genomes[roulette(values, rng)]
            if drawn < SELECTED:
                children.append(one)
            elif drawn < CROSSED:
                other = genomes[roulette(values, rng)]
                children += exchanged(one, other, *segment(len(one), rng))
            else:
                cut = segment(len(one), rng)
                children.append(inverted(one, encoding.levels, *cut, rng))
        return [encoding.repair(child) for child in children[:count]]


def fitness(member: Member) -> float:
    """A(p) + λ·C(p): what is left of the quality and the mean share of the costs that is saved.

    0 for what failed. Source: Wang et al., KDD 2018. Differs: quality relative to the original's;
    the mean of all costs, of which the paper has one; limits play no part, as in the paper.
    """
    if member.outcome.failed:
        return 0.0
    loss, *costs = member.outcome.values
    saved = float(np.mean([1 - cost for cost in costs])) if costs else 0.0
    return max(1 - loss + PRESSURE * saved, 0.0)


BREEDERS: dict[str, type[Breeder]] = {
    "nsga2": Tournaments,
    "nsga3": Tournaments,
    "random": Chance,
    "paper": Paper,
}
