"""What a search keeps of a genome: what it was worth, and when it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FAILED_VIOLATION = 1e9
"""Of what could not be evaluated: worse than any broken limit."""


@dataclass(frozen=True)
class Goals:
    """What is to be small, by name, and the corner of the box that a front is judged in.

    The first one is the loss of quality; the others are costs as shares of the original's.
    """

    names: tuple[str, ...]
    reference: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Outcome:
    """What came of a genome.

    `values` are those of the goals, none when it `failed` (the reason). `violation` says by how
    much it breaks a limit; at most 0 when it breaks none.
    """

    values: tuple[float, ...]
    violation: float = 0.0
    failed: str = ""

    @classmethod
    def failure(cls, why: str) -> Outcome:
        return cls((), FAILED_VIOLATION, why)

    @property
    def feasible(self) -> bool:
        return not self.failed and self.violation <= 0


@dataclass(frozen=True)
class Member:
    """An evaluated genome; `number` counts evaluations from 0."""

    number: int
    generation: int
    genome: tuple[int, ...]
    outcome: Outcome

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Member:
        """From its JSON."""
        outcome = stored["outcome"]
        return cls(
            stored["number"],
            stored["generation"],
            tuple(stored["genome"]),
            Outcome(tuple(outcome["values"]), outcome["violation"], outcome["failed"]),
        )
