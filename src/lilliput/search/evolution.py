"""Ask, evaluate, tell: populations of genomes that get better in several respects at once.

The engine knows neither networks nor data. It asks for genomes to be evaluated and is told what
came of them; everything else (cache, workers, rungs) is the caller's. All that it knows goes to
JSON, so that it goes on after a crash as if nothing had happened.

Sources: Deb et al., "NSGA-II", 2002; Deb and Jain, "NSGA-III", 2014; Wang et al., "Towards
Evolutionary Compression", KDD 2018 (`paper`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from lilliput.errors import LilliputError
from lilliput.search.breeding import BREEDERS, Breeder
from lilliput.search.genomes import Encoding, Genome, key_of
from lilliput.search.members import FAILED_VIOLATION, Goals, Member, Outcome
from lilliput.search.survival import (
    RankAndCrowding,
    ReferenceDirections,
    Survival,
    Values,
    hypervolume,
    non_dominated,
)

T = TypeVar("T")

Algorithm = Literal["nsga2", "nsga3", "random", "paper"]

TRIES = 40
"""Times a child that was seen before is made anew, for each place of a generation."""


class Evolution(Generic[T]):
    """A population under way.

    Args:
        encoding: Makes, mends and mixes genomes.
        goals: What the values of an outcome are.
        algorithm: "nsga2", "nsga3", "random" (after the same first generation) or "paper".
        population: Members of a generation.
        seed: Fixes everything.
    """

    def __init__(
        self,
        encoding: Encoding[T],
        goals: Goals,
        *,
        algorithm: Algorithm = "nsga2",
        population: int = 24,
        seed: int = 0,
    ) -> None:
        self.encoding, self.goals, self.size = encoding, goals, population
        self.algorithm = algorithm
        self.rng = np.random.default_rng(seed)
        self.generation = 0
        self.archive: dict[str, Member] = {}
        self.population: list[Member] = []
        self.hypervolumes: list[float] = []
        self._breeder: Breeder = BREEDERS[algorithm]()
        self._survival: Survival = (
            ReferenceDirections(len(goals), population)
            if algorithm == "nsga3"
            else RankAndCrowding()
        )
        self._asked: list[Genome] | None = None
        self._brood: list[Genome] = []

    def ask(self) -> list[Genome]:
        """The genomes of the next generation that were never evaluated; the same until told."""
        if self._asked is None:
            self._brood = self._first() if self.generation == 0 else self._next()
            fresh = {key_of(g): g for g in self._brood if key_of(g) not in self.archive}
            self._asked = list(fresh.values())
        return [genome.copy() for genome in self._asked]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """What came of each genome that was asked for, in that order.

        Raises:
            LilliputError: Nothing was asked, or another number of genomes.
        """
        if self._asked is None or len(outcomes) != len(self._asked):
            asked = "nothing was asked" if self._asked is None else f"{len(self._asked)} were asked"
            raise LilliputError(f"{len(outcomes)} outcomes were told, and {asked}")
        for genome, outcome in zip(self._asked, outcomes, strict=True):
            self.archive[key_of(genome)] = Member(
                len(self.archive), self.generation, tuple(genome.tolist()), outcome
            )
        brood = [self.archive[key_of(genome)] for genome in self._brood]
        self.population = self._survivors(brood)
        self.generation += 1
        self._asked, self._brood = None, []
        self.hypervolumes.append(self.hypervolume())

    def shorten(self, count: int) -> None:
        """Of what was asked for, only the first `count` are ever told; the rest is as if unborn."""
        unborn = {key_of(genome) for genome in self.ask()[count:]}
        self._asked = [genome for genome in self.ask() if key_of(genome) not in unborn]
        self._brood = [genome for genome in self._brood if key_of(genome) not in unborn]

    def front(self) -> list[Member]:
        """Of all that were ever evaluated: feasible, and beaten by no other; by first value."""
        sound = [m for m in self.archive.values() if m.outcome.feasible]
        found = [sound[place] for place in non_dominated(values_of(sound, self.goals))]
        return sorted(found, key=lambda member: member.outcome.values)

    def hypervolume(self) -> float:
        """Share of the box up to the goals' reference that the front dominates."""
        return hypervolume(values_of(self.front(), self.goals), self.goals.reference)

    def _first(self) -> list[Genome]:
        """Seeds, spread when there are too many, and random genomes; no two equal."""
        seeds = [self.encoding.repair(genome) for genome in self.encoding.seeds()]
        places = np.unique(np.linspace(0, len(seeds) - 1, min(self.size, len(seeds))).astype(int))
        chosen = [seeds[place] for place in places]
        return self._filled(chosen, lambda: [self.encoding.sample(self.rng)])

    def _next(self) -> list[Genome]:
        if self._breeder.repeats:
            return self._breeder.brood(self.population, self.encoding, self.size, self.rng)
        return self._filled(
            [], lambda: self._breeder.brood(self.population, self.encoding, 2, self.rng)
        )

    def _filled(self, begun: list[Genome], make: Callable[[], list[Genome]]) -> list[Genome]:
        """As many different new genomes as a generation has, or fewer when the space runs out."""
        found = {key_of(genome): genome for genome in begun}
        for _ in range(TRIES * self.size):
            for genome in make():
                mended = self.encoding.repair(genome)
                key = key_of(mended)
                if len(found) < self.size and key not in self.archive:
                    found.setdefault(key, mended)
            if len(found) >= self.size:
                break
        return list(found.values())

    def _survivors(self, brood: list[Member]) -> list[Member]:
        if self._breeder.repeats:
            return brood
        both = list({m.number: m for m in [*self.population, *brood]}.values())
        values = values_of(both, self.goals)
        violations = np.array([member.outcome.violation for member in both])
        kept = self._survival.keep(values, violations, self.size, self.rng)
        return [both[place] for place in kept]

    def state(self) -> dict[str, Any]:
        """All of it between two generations, as JSON."""
        return {
            "algorithm": self.algorithm,
            "generation": self.generation,
            "archive": [asdict(member) for member in self.archive.values()],
            "population": [member.number for member in self.population],
            "hypervolumes": self.hypervolumes,
            "rng": self.rng.bit_generator.state,
            "survival": self._survival.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, with the same settings.

        Raises:
            LilliputError: It is of another algorithm.
        """
        if state["algorithm"] != self.algorithm:
            raise LilliputError(
                f"a search by {state['algorithm']!r} cannot go on by {self.algorithm!r}",
                hint="begin it anew, or give it the algorithm that it had",
            )
        members = [Member.of(stored) for stored in state["archive"]]
        self.generation = state["generation"]
        self.archive = {key_of(np.array(m.genome)): m for m in members}
        self.population = [members[number] for number in state["population"]]
        self.hypervolumes = list(state["hypervolumes"])
        self.rng.bit_generator.state = state["rng"]
        self._survival.load_state(state["survival"])
        self._asked, self._brood = None, []


def values_of(members: Sequence[Member], goals: Goals) -> Values:
    """(members, objectives); what failed gets the reference and its violation."""
    rows = [m.outcome.values or goals.reference for m in members]
    return np.array(rows, float).reshape(len(members), len(goals))


__all__ = ["FAILED_VIOLATION", "Algorithm", "Evolution", "Goals", "Member", "Outcome", "values_of"]
