"""How the searches of a run went: the front of each generation, and what its rungs are worth."""

from __future__ import annotations

from dataclasses import dataclass

from lilliput.runs.history import History

GENERATIONS = ("generation", "evaluated", "failed", "beyond the limit", "front", "hypervolume")

HYPERVOLUME_SAYS = (
    "Hypervolume: the share of the box between the original's costs without any loss, and those "
    "costs with the loss allowed, that the front dominates. Estimates, on validation examples."
)


@dataclass(frozen=True)
class SearchRows:
    """One search: cells of its generations, and sentences."""

    name: str
    generations: list[list[str]]
    says: list[str]


def searches_of(history: History) -> list[SearchRows]:
    """Every search that noted its generations, in their order."""
    return [
        SearchRows(
            name,
            [
                [
                    str(facts.get("generation", "")),
                    str(facts.get("evaluated", "")),
                    str(facts.get("failed", "")),
                    str(facts.get("infeasible", "")),
                    str(facts.get("front", "")),
                    f"{float(facts.get('hypervolume', 0.0)):.4f}",
                ]
                for facts in generations
            ],
            [
                *(str(rung.get("says", "")) for rung in history.rungs.get(name, ())),
                HYPERVOLUME_SAYS,
            ],
        )
        for name, generations in history.generations.items()
    ]
