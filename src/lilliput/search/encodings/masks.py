"""One bit a channel: 1 keeps it. All layers are decided jointly.

Source: Wang et al., "Towards Evolutionary Compression", KDD 2018: a network is one 0/1 string over
all filters of all layers.
Differs: a bit stands for a class of coupled channels, so that residual networks need no care; moves
know the importance of channels; an empty group gets its dearest channel, in the genome itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lilliput.search.encodings.channels import Slice, ranks_of, slices_of, starting_points
from lilliput.search.genomes import ENCODINGS, Genome, Ground, Variant
from lilliput.search.operators import exchanged, segment, swapped

JITTER = 0.1
"""Share of a group's channels that a move of its number takes or gives."""

GUIDED = 0.1
"""Weight of the least likely flip beside that of the likeliest."""


@ENCODINGS.register("masks")
class Masks:
    """Genes lie group by group, the dearest channel of each group first."""

    name = "masks"

    def __init__(self, ground: Ground) -> None:
        self._slices = slices_of(ground)
        self._starts = [frozenset(gone) for gone in starting_points(ground)]
        self._classes = np.array([n for part in self._slices for n in part.classes])
        self._bounds = np.cumsum([0, *map(len, self._slices)])
        self._ranks = ranks_of(self._slices)
        self._owner = np.repeat(np.arange(len(self._slices)), [len(s) for s in self._slices])

    @property
    def levels(self) -> Genome:
        return np.full(len(self._classes), 2, np.int64)

    def seeds(self) -> list[Genome]:
        return [
            self.repair(np.array([n not in gone for n in self._classes], np.int64))
            for gone in self._starts
        ]

    def sample(self, rng: np.random.Generator) -> Genome:
        """Keep ratio uniform over 0..1 first, then the bits: sizes spread over the whole range."""
        kept = rng.random()
        return self.repair((rng.random(len(self._classes)) < kept).astype(np.int64))

    def repair(self, genome: Genome) -> Genome:
        mended = genome.copy()
        for part, start in zip(self._slices, self._bounds, strict=False):
            if part.least and not genome[start : start + len(part)].any():
                mended[start] = 1
        return mended

    def crossover(
        self, one: Genome, other: Genome, rng: np.random.Generator
    ) -> tuple[Genome, Genome]:
        """Whole groups change sides; a single group is exchanged in part."""
        if len(self._slices) == 1:
            return exchanged(one, other, *segment(len(one), rng))
        return swapped(one, other, (rng.random(len(self._slices)) < 0.5)[self._owner])

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """A few bits, as a rule the cheap of the kept and the dear of the lost; or a number."""
        if rng.random() < 0.5:
            return self.repair(self._jittered(genome, rng))
        return self.repair(self._flipped(genome, rng))

    def _flipped(self, genome: Genome, rng: np.random.Generator) -> Genome:
        count = min(1 + rng.poisson(1.0), len(genome))
        weights = np.where(genome == 1, 1 - self._ranks, self._ranks) + GUIDED
        places = rng.choice(len(genome), count, replace=False, p=weights / weights.sum())
        changed = genome.copy()
        changed[places] ^= 1
        return changed

    def _jittered(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """One group keeps up to a tenth of its channels more or less, by their importance."""
        which = int(rng.integers(len(self._slices)))
        start, stop = self._bounds[which], self._bounds[which + 1]
        bits = genome[start:stop]
        count = int(rng.integers(1, max(round(JITTER * len(bits)), 1) + 1))
        changed = genome.copy()
        if rng.random() < 0.5:
            changed[start + np.flatnonzero(bits)[::-1][:count]] = 0
        else:
            changed[start + np.flatnonzero(bits == 0)[:count]] = 1
        return changed

    def express(self, genome: Genome) -> Variant:
        return Variant(gone=tuple(sorted(self._classes[genome == 0].tolist())))

    def describe(self, genome: Genome) -> dict[str, Any]:
        return {"kept": {part.name: count for part, count in self._counts(genome)}}

    def _counts(self, genome: Genome) -> list[tuple[Slice, int]]:
        return [
            (part, part.others + int(genome[start : start + len(part)].sum()))
            for part, start in zip(self._slices, self._bounds, strict=False)
        ]
