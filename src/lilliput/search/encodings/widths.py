"""One number a group of channels: how many stay, the dearest of them.

Far fewer genes than one bit a channel, so a search converges sooner; which channels of a group stay
is left to their importance. Differs from the paper, whose code is a bit a filter: see `masks`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lilliput.search.encodings.channels import Slice, slices_of, starting_points
from lilliput.search.genomes import ENCODINGS, Genome, Ground, Variant
from lilliput.search.operators import few_places, swapped

JITTER = 0.15
"""Share of its range that a gene moves by, at most, most of the time."""

REDRAWN = 0.15
"""How often a gene that moves is drawn anew instead."""


@ENCODINGS.register("widths")
class Widths:
    """A gene is a place in the ascending list of numbers that its group may keep."""

    name = "widths"

    def __init__(self, ground: Ground) -> None:
        self._slices = slices_of(ground)
        self._counts = [_allowed(part, ground.multiple_of) for part in self._slices]
        self._starts = starting_points(ground)

    @property
    def levels(self) -> Genome:
        return np.array([len(counts) for counts in self._counts], np.int64)

    def seeds(self) -> list[Genome]:
        found = [self._nearest(gone) for gone in self._starts]
        return list({tuple(genome.tolist()): genome for genome in found}.values())

    def _nearest(self, gone: frozenset[int]) -> Genome:
        return np.array(
            [
                int(np.argmin(np.abs(counts - sum(n not in gone for n in part.classes))))
                for part, counts in zip(self._slices, self._counts, strict=True)
            ],
            np.int64,
        )

    def sample(self, rng: np.random.Generator) -> Genome:
        """A share for all groups first, then each around it."""
        shares = np.clip(rng.random() + rng.normal(0, 0.15, len(self._counts)), 0, 1)
        return np.rint(shares * (self.levels - 1)).astype(np.int64)

    def repair(self, genome: Genome) -> Genome:
        return np.clip(genome, 0, self.levels - 1)

    def crossover(
        self, one: Genome, other: Genome, rng: np.random.Generator
    ) -> tuple[Genome, Genome]:
        return swapped(one, other, rng.random(len(one)) < 0.5)

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        moving = few_places(len(genome), rng)
        reach = np.maximum(np.rint(JITTER * self.levels), 1).astype(np.int64)
        steps = rng.integers(1, reach + 1) * rng.choice([-1, 1], len(genome))
        drawn = np.where(
            rng.random(len(genome)) < REDRAWN, rng.integers(0, self.levels), genome + steps
        )
        return self.repair(np.where(moving, drawn, genome))

    def express(self, genome: Genome) -> Variant:
        gone = [
            number
            for part, counts, gene in zip(self._slices, self._counts, genome, strict=True)
            for number in part.classes[counts[gene] :]
        ]
        return Variant(gone=tuple(sorted(gone)))

    def describe(self, genome: Genome) -> dict[str, Any]:
        kept = {
            part.name: part.others + int(counts[gene])
            for part, counts, gene in zip(self._slices, self._counts, genome, strict=True)
        }
        return {"kept": kept}


def _allowed(part: Slice, multiple_of: int) -> np.ndarray:
    """Numbers of free channels that bring the whole group onto the grid; all of them always."""
    whole = len(part)
    on_grid = [
        count for count in range(part.least, whole) if (count + part.others) % multiple_of == 0
    ]
    return np.array([*on_grid, whole], np.int64)
