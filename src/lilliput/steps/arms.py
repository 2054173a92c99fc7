"""Several ways from the same candidates, compared in one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import InstanceOf, model_serializer

from lilliput.steps.base import Stage, Step


class Arms(Stage):
    """Every arm's steps begin with the same candidates; what all of them made goes on together.

    No stage of its own in the registry: it has the settings of others, and makes nothing. Arms are
    made of steps. Searches go before or after them, for what they try is named by itself.
    """

    name: ClassVar[str] = "arms"

    branches: Mapping[str, tuple[InstanceOf[Step], ...]]

    def described(self) -> dict[str, object]:
        arms = {arm: [step.described() for step in steps] for arm, steps in self.branches.items()}
        return {self.name: arms}

    @model_serializer
    def _plain(self) -> dict[str, Any]:
        return {
            arm: [{step.name: step.model_dump(mode="json")} for step in steps]
            for arm, steps in self.branches.items()
        }


def numbered(stages: Sequence[Stage], first: int = 1) -> Iterator[tuple[int, Stage]]:
    """Stages with their numbers; arms have that of the first of their steps, which count too."""
    for stage in stages:
        yield first, stage
        first += length([stage])


def length(stages: Sequence[Stage]) -> int:
    """How many stages there are, with the steps of arms."""
    return sum(
        sum(map(len, stage.branches.values())) if isinstance(stage, Arms) else 1 for stage in stages
    )
