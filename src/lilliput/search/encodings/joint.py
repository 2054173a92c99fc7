"""Several encodings of one network as one: the genes of one after those of the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import zip_longest
from typing import Any

import numpy as np

from lilliput.search.encodings.bits import Bits
from lilliput.search.genomes import ENCODINGS, Encoding, Genome, Ground, Variant


class Joint:
    """Every operator works on each part by itself, and a variant is changed by all parts."""

    name = "joint"

    def __init__(self, parts: Sequence[Encoding[Variant]]) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part.levels) for part in self._parts])[:-1]

    @property
    def levels(self) -> Genome:
        return np.concatenate([part.levels for part in self._parts])

    def _each(self, genome: Genome) -> list[tuple[Encoding[Variant], Genome]]:
        return list(zip(self._parts, np.split(genome, self._ends), strict=True))

    def seeds(self) -> list[Genome]:
        """The seeds of each part beside the other parts unchanged, then seeds side by side."""
        lists = [part.seeds() for part in self._parts]
        plain = [found[0] for found in lists]
        alone = [
            np.concatenate([*plain[:place], seed, *plain[place + 1 :]])
            for place, found in enumerate(lists)
            for seed in found
        ]
        together = [
            np.concatenate([own if own is not None else found[-1] for own, found in rows])
            for rows in (
                list(zip(row, lists, strict=True)) for row in zip_longest(*lists, fillvalue=None)
            )
        ]
        unique = {tuple(genome.tolist()): genome for genome in [*alone, *together]}
        return list(unique.values())

    def sample(self, rng: np.random.Generator) -> Genome:
        return np.concatenate([part.sample(rng) for part in self._parts])

    def repair(self, genome: Genome) -> Genome:
        return np.concatenate([part.repair(genes) for part, genes in self._each(genome)])

    def crossover(
        self, one: Genome, other: Genome, rng: np.random.Generator
    ) -> tuple[Genome, Genome]:
        pairs = [
            part.crossover(mine, theirs, rng)
            for (part, mine), (_, theirs) in zip(self._each(one), self._each(other), strict=True)
        ]
        return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """One part certainly, each other half of the time."""
        moving = rng.random(len(self._parts)) < 0.5
        moving[rng.integers(len(self._parts))] = True
        return np.concatenate(
            [
                part.mutate(genes, rng) if moves else genes
                for (part, genes), moves in zip(self._each(genome), moving, strict=True)
            ]
        )

    def express(self, genome: Genome) -> Variant:
        variants = [part.express(genes) for part, genes in self._each(genome)]
        return reduce(Variant.joined, variants)

    def describe(self, genome: Genome) -> dict[str, Any]:
        return {k: v for part, genes in self._each(genome) for k, v in part.describe(genes).items()}


def _registered(first: str) -> Callable[[Ground], Encoding[Variant]]:
    def made(ground: Ground) -> Encoding[Variant]:
        return Joint([ENCODINGS[first](ground), Bits(ground)])

    return made


ENCODINGS.register("widths+bits")(_registered("widths"))
ENCODINGS.register("masks+bits")(_registered("masks"))
