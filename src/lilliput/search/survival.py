"""Who stays of a population, and how good a front is; pymoo's, behind plain arrays.

Sources: Deb et al., "NSGA-II", 2002 (rank and crowding); Deb and Jain, "NSGA-III", 2014 (reference
directions); Zitzler and Thiele, 1998 (hypervolume). All values are to be small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
"""(members, objectives)."""


class Survival(Protocol):
    """Chooses who stays. `state` is all that it remembers from call to call, as JSON."""

    def keep(
        self, values: Values, violations: Values, count: int, rng: np.random.Generator
    ) -> list[int]:
        """Places of those that stay, at most `count`, the best first."""

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class RankAndCrowding:
    """NSGA-II: by non-dominated rank, then by the room around."""

    def keep(
        self, values: Values, violations: Values, count: int, rng: np.random.Generator
    ) -> list[int]:
        from pymoo.operators.survival.rank_and_crowding import RankAndCrowding as Theirs

        return _kept(Theirs(), values, violations, count, rng)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """There is nothing to remember."""


class ReferenceDirections:
    """NSGA-III: by non-dominated rank, then so that all directions of the trade are held."""

    REMEMBERED = ("ideal_point", "worst_point", "nadir_point", "extreme_points")

    def __init__(self, objectives: int, population: int) -> None:
        from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival
        from pymoo.util.ref_dirs import get_reference_directions

        # As many directions as the population can hold: partitions grow until they are too many.
        found, parts = np.eye(objectives), 1
        while True:
            more = get_reference_directions("das-dennis", objectives, n_partitions=parts)
            if len(more) > population:
                break
            found, parts = more, parts + 1
        self._theirs = ReferenceDirectionSurvival(found)

    def keep(
        self, values: Values, violations: Values, count: int, rng: np.random.Generator
    ) -> list[int]:
        return _kept(self._theirs, values, violations, count, rng)

    def state(self) -> dict[str, Any]:
        known = {name: getattr(self._theirs.norm, name) for name in self.REMEMBERED}
        # JSON knows no infinity, which stands where nothing was seen yet.
        return {
            name: value.tolist()
            for name, value in known.items()
            if value is not None and np.isfinite(value).all()
        }

    def load_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self._theirs.norm, name, np.array(value))


def _kept(
    survival: Any, values: Values, violations: Values, count: int, rng: np.random.Generator
) -> list[int]:
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem

    if not len(values):
        return []
    members = Population.new("F", values, "G", violations[:, None])
    members.set("place", list(range(len(values))))
    # Clamping would let everything pass as feasible: pymoo reads CV, not G.
    members.set("CV", np.maximum(violations, 0.0)[:, None])
    problem = Problem(n_var=1, n_obj=values.shape[1], n_ieq_constr=1)
    kept = survival.do(problem, members, n_survive=count, random_state=rng)
    return [int(member.get("place")) for member in kept]


@dataclass(frozen=True)
class Standing:
    """Rank (0 the front) and crowding distance of each member."""

    ranks: NDArray[np.int64]
    crowding: Values


def standing(values: Values) -> Standing:
    """Where everyone stands among the others; (members,) each."""
    from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    ranks, crowding = np.zeros(len(values), np.int64), np.zeros(len(values))
    distance = get_crowding_function("cd")
    for number, front in enumerate(NonDominatedSorting().do(values)):
        ranks[front] = number
        crowding[front] = distance.do(values[front])
    return Standing(ranks, crowding)


def non_dominated(values: Values) -> list[int]:
    """Places on the front, ascending; of equal rows the first."""
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    if not len(values):
        return []
    _, first = np.unique(values, axis=0, return_index=True)
    places = np.sort(first)
    front = NonDominatedSorting().do(values[places], only_non_dominated_front=True)
    return sorted(int(places[n]) for n in front)


def hypervolume(values: Values, reference: Sequence[float]) -> float:
    """The share of the box between 0 and `reference` that the values dominate, 0..1.

    What is better than 0 counts as 0, so that the box stays the same whatever is found.
    """
    from pymoo.indicators.hv import HV

    corner = np.asarray(reference, float)
    if not len(values):
        return 0.0
    inside = np.clip(values, 0.0, None) / corner
    return float(HV(ref_point=np.ones(len(corner)))(inside))
