"""Moves between genomes that need not know what the genes mean, and the draw of parents.

Sources: Wang et al., "Towards Evolutionary Compression", KDD 2018 (roulette, exchange and inversion
of a segment, elite); Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II",
2002, section III (binary tournament).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lilliput.search.genomes import Genome


def segment(length: int, rng: np.random.Generator) -> tuple[int, int]:
    """[start, stop) with both ends uniform over 0 .. length."""
    start, stop = sorted(int(end) for end in rng.integers(0, length + 1, 2))
    return start, stop


def exchanged(one: Genome, other: Genome, start: int, stop: int) -> tuple[Genome, Genome]:
    """Both with [start, stop) of the other."""
    first, second = one.copy(), other.copy()
    first[start:stop], second[start:stop] = other[start:stop], one[start:stop]
    return first, second


def swapped(one: Genome, other: Genome, places: NDArray[np.bool_]) -> tuple[Genome, Genome]:
    """Both with the other's genes where `places`, (length,), is true."""
    return np.where(places, other, one), np.where(places, one, other)


def few_places(length: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where a mutation moves: one gene certainly, each other with probability 1 / length."""
    places = rng.random(length) < 1 / length
    places[rng.integers(length)] = True
    return places


def inverted(
    genome: Genome, levels: Genome, start: int, stop: int, rng: np.random.Generator
) -> Genome:
    """Every gene of [start, stop) takes another of its values: a bit is inverted.

    Genes with one value stay.
    """
    changed = genome.copy()
    moves = 1 + rng.integers(0, np.maximum(levels[start:stop] - 1, 1))
    changed[start:stop] = (genome[start:stop] + moves) % levels[start:stop]
    return changed


def roulette(fitness: Sequence[float], rng: np.random.Generator) -> int:
    """A place, drawn with probability fitness / sum; uniform when all are zero.

    Args:
        fitness: At least 0 each.
        rng: Draws.
    """
    values = np.asarray(fitness, float)
    total = values.sum()
    shares = values / total if total > 0 else np.full(len(values), 1 / len(values))
    return int(rng.choice(len(values), p=shares))
