"""How many patterns each layer keeps, from what they carry and what they were measured to cost.

Time is a staircase in the number of patterns, with steps that may go down: numbers that no larger
one undercuts are all that a choice can be among. Pure functions; the tables are measured by
`lilliput.meter.pattern_times`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lilliput.meter.pattern_times import SPATIAL

Counts = dict[str, int]
"""{layer: patterns kept}; a layer that stays spatial has `SPATIAL` of them."""


class Form(NamedTuple):
    """One form of a layer: patterns kept, share of the response they carry, time it takes.

    Times of the forms of all layers are in one unit.
    """

    kept: int
    energy: float
    time: float


class Found(NamedTuple):
    """A choice and the time that its network was measured to take."""

    counts: Counts
    took: float


def as_many_as_cost_no_more(count: int, times: Mapping[int, float], tolerance: float) -> int:
    """The largest number of patterns whose time is at most that of `count` and the tolerance.

    >>> as_many_as_cost_no_more(5, {4: 0.95, 5: 2.1, 8: 0.98, 12: 1.35, 13: 4.5}, 0.03)
    12

    A number that was not measured stays.
    """
    if count not in times:
        return count
    allowed = times[count] * (1.0 + tolerance)
    return max(m for m, time in times.items() if m >= count and time <= allowed)


def forms_of(
    carried: Sequence[float], ratios: Mapping[int, float], spatial: float, tolerance: float
) -> list[Form]:
    """The forms of a layer that are worth having: the spatial one, and those that are faster.

    Args:
        carried: Share of the response that the first 1, 2, ... patterns carry.
        ratios: {number of patterns: time relative to the layer as it is}.
        spatial: Time of the layer as it is.
        tolerance: Forms whose times differ by less cost the same.
    """
    faster = [m for m in sorted(ratios) if m <= len(carried) and ratios[m] < 1.0 - tolerance]
    return [
        Form(SPATIAL, 1.0, spatial),
        *(Form(m, carried[m - 1], ratios[m] * spatial) for m in faster),
    ]


def most_energy(forms: Mapping[str, Sequence[Form]], budget: float) -> Counts:
    """The form of each layer, so that the energies sum to much and the times to the budget at most.

    Every layer begins with its fastest form. Then, again and again, the layer that gains most
    energy per time gets the form with which it does, as long as the sum of times fits. Steps of
    several patterns count as well, so that a layer gets over a dear step of its staircase to a
    cheap one. If not even the fastest forms fit, they are what comes back.
    """
    chosen = {path: min(each, key=lambda f: (f.time, -f.energy)) for path, each in forms.items()}
    while True:
        left = budget - sum(form.time for form in chosen.values())
        steps = [
            (_rate(now, form), form.energy - now.energy, path, form)
            for path, now in chosen.items()
            for form in forms[path]
            if form.energy > now.energy and form.time - now.time <= left
        ]
        if not steps:
            return {path: form.kept for path, form in chosen.items()}
        _, _, path, form = max(steps, key=lambda step: step[:2])
        chosen[path] = form


def _rate(now: Form, form: Form) -> float:
    dearer = form.time - now.time
    return (form.energy - now.energy) / dearer if dearer > 0 else float("inf")


def time_of(counts: Counts, forms: Mapping[str, Sequence[Form]]) -> float:
    """The sum of the layers' times."""
    return sum(f.time for path, each in forms.items() for f in each if f.kept == counts[path])


def within_goal(
    forms: Mapping[str, Sequence[Form]],
    rest: float,
    goal: float,
    measure: Callable[[Counts], float],
    *,
    tries: int = 5,
    slack: float = 0.01,
) -> list[Found]:
    """Choices whose networks were measured, until one keeps the goal with little to spare.

    The layers' times do not quite add up to the network's. By what the network takes more or less
    than the goal, the next choice aims lower or higher.

    Args:
        forms: Of each layer.
        rest: Time of the network without these layers.
        goal: Time that the network may take.
        measure: Time of the network with a choice.
        tries: Networks measured at most.
        slack: The network may be faster than the goal by so much; then nothing else is tried.
    """
    found: list[Found] = []
    aim = goal - rest
    while len(found) < tries and (counts := _untried(forms, aim, found, goal)) is not None:
        found.append(Found(counts, measure(counts)))
        short = goal - found[-1].took
        if 0 <= short <= slack:
            break
        aim = time_of(counts, forms) + short
    return found


def _untried(
    forms: Mapping[str, Sequence[Form]], aim: float, found: Sequence[Found], goal: float
) -> Counts | None:
    """The choice for this aim; where that missed the goal before, the dearest below it."""
    missed = [one.counts for one in found if one.took > goal]
    counts = most_energy(forms, aim)
    while counts in missed:
        cheaper = most_energy(forms, time_of(counts, forms) - 1e-9)
        if cheaper == counts:
            return None
        counts = cheaper
    return None if any(counts == one.counts for one in found) else counts


def energy_of(counts: Counts, forms: Mapping[str, Sequence[Form]]) -> float:
    """The sum of the shares that the layers' forms carry."""
    return sum(f.energy for path, each in forms.items() for f in each if f.kept == counts[path])
