"""What every encoding gives to a search, and what it is made for.

A genome is a row of integers; gene n takes the values 0 .. levels[n] - 1. The encoding says what
they mean, which moves between genomes make sense, and which genomes to begin with. Whoever
evaluates sees only what a genome expresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lilliput.network import Network
from lilliput.prune.analysis import Analysis
from lilliput.prune.importance import Scores
from lilliput.registry import Registry

Genome = NDArray[np.int64]
"""(length,)."""

T_co = TypeVar("T_co", covariant=True)


class Encoding(Protocol[T_co]):
    """Operators that fit what the genes mean. None of them changes the genomes it is given."""

    name: str

    @property
    def levels(self) -> Genome:
        """How many values each gene takes, (length,), at least 1."""

    def seeds(self) -> list[Genome]:
        """Genomes worth beginning with; the first one is the original, unchanged."""

    def sample(self, rng: np.random.Generator) -> Genome:
        """A random genome; together they spread over all sizes."""

    def repair(self, genome: Genome) -> Genome:
        """The nearest genome that can be expressed; a repaired one stays as it is."""

    def crossover(
        self, one: Genome, other: Genome, rng: np.random.Generator
    ) -> tuple[Genome, Genome]:
        """Two children; at every place they hold the two values of their parents."""

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """A small change."""

    def express(self, genome: Genome) -> T_co:
        """What is evaluated."""

    def describe(self, genome: Genome) -> dict[str, Any]:
        """The genome in words for a report, as JSON."""


@dataclass(frozen=True)
class Variant:
    """A changed version of a network: channels that go, bits of the weights and inputs of layers.

    `gone` are classes of the network's analysis. Layers that are not named keep 32 bits.
    """

    gone: tuple[int, ...] = ()
    weight_bits: Mapping[str, int] = field(default_factory=dict)
    activation_bits: Mapping[str, int] = field(default_factory=dict)

    def joined(self, other: Variant) -> Variant:
        """Both changes at once."""
        return Variant(
            tuple(sorted({*self.gone, *other.gone})),
            {**self.weight_bits, **other.weight_bits},
            {**self.activation_bits, **other.activation_bits},
        )


@dataclass(frozen=True)
class Ground:
    """What an encoding of variants stands on.

    Attributes:
        network: The original.
        analysis: Of that network.
        scores: (class_count,), larger is dearer.
        protected: Classes that stay.
        fixed: Paths of layers that keep 32 bits.
        multiple_of: Grid of the numbers of channels of a group.
        bits: What a layer may have.
        activations: Whether the inputs of layers get bits too.
        limits: {cost: the most that a variant may have of it}.
    """

    network: Network
    analysis: Analysis
    scores: Scores
    protected: frozenset[int] = frozenset()
    fixed: frozenset[str] = frozenset()
    multiple_of: int = 1
    bits: tuple[int, ...] = (2, 3, 4, 6, 8, 32)
    activations: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)


ENCODINGS: Registry[Callable[[Ground], Encoding[Variant]]] = Registry(
    "encoding", "lilliput.search.encodings"
)


def key_of(genome: Genome) -> str:
    """A short name of a genome; equal genomes, equal names.

    >>> key_of(np.array([1, 0])) == key_of(np.array([1, 0], np.int32))
    True
    """
    return hashlib.sha256(np.asarray(genome, "<i8").tobytes()).hexdigest()[:16]
