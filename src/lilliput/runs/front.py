"""Which files are worth having: none on the front is beaten by another, and one is recommended.

Only differences beyond the noise count: where both figures have intervals, these must not
overlap. Speed is ranked by the ratio to the original file, taken side by side, never by
milliseconds from different sessions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from lilliput.budget import Budget, Miss
from lilliput.candidate import Candidate
from lilliput.measurement import Measurement
from lilliput.units import format_bytes, format_count, format_ms, rounded_up

RANKED = ("ratio", "bytes", "drop")
"""What a front minimises: time relative to the original, length of the file, loss of quality."""

NO_GAIN = "no gain over its parent"
NOT_FASTER = "not faster than its parent"
LOSES = "loses more than allowed"


class Figured(Protocol):
    """A candidate or its record."""

    @property
    def id(self) -> str: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def measurements(self) -> Mapping[str, Measurement]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...


C = TypeVar("C", bound=Figured)


def beats(ours: Measurement | None, theirs: Measurement | None) -> bool:
    """Whether a figure (less is better) is lower beyond what its noise allows."""
    if ours is None or theirs is None:
        return False
    if ours.interval is not None and theirs.interval is not None:
        return ours.value < theirs.value and ours.interval[1] < theirs.interval[0]
    return ours.value < theirs.value


def dominates(ours: Figured, theirs: Figured, quantities: Sequence[str] = RANKED) -> bool:
    """Whether `ours` is nowhere worse and somewhere better beyond the noise.

    "Nowhere worse" goes by the values themselves, so that no circle of candidates can dominate
    one another in turn and leave an empty front.
    """
    return all(_value(ours, q) <= _value(theirs, q) for q in quantities) and any(
        beats(ours.measurements.get(q), theirs.measurements.get(q)) for q in quantities
    )


def pareto(candidates: Iterable[C], quantities: Sequence[str] = RANKED) -> tuple[C, ...]:
    """The candidates that no other dominates, in the order given.

    Candidates that lack one of the quantities, and those labelled as no gain over their parent,
    are not on the front; nor do they keep others off it.
    """
    complete = [
        c
        for c in candidates
        if NO_GAIN not in c.labels and not any(math.isnan(_value(c, q)) for q in quantities)
    ]
    return tuple(
        c for c in complete if not any(dominates(other, c, quantities) for other in complete)
    )


def recommend(front: Sequence[C], budget: Budget) -> tuple[C | None, tuple[Miss, ...]]:
    """The fastest file within the budget; if there is none, the closest one and what it misses.

    Among files whose speed cannot be told from the fastest one's, that which loses least, then
    the smallest, is taken. Nothing is recommended from an empty front.
    """
    limits = budget.limits()
    judged = [c for c in front if limits.keys() <= c.measurements.keys()]
    if not judged:
        return None, ()
    within = [c for c in judged if not budget.misses(c.measurements)]
    if not within:
        closest = min(judged, key=lambda c: (budget.shortfall(c.measurements), *_order(c)))
        return closest, budget.misses(closest.measurements)
    fastest = min(within, key=lambda c: (_value(c, "ratio"), *_order(c)))
    as_fast = [
        c
        for c in within
        if not beats(fastest.measurements.get("ratio"), c.measurements.get("ratio"))
    ]
    return min(as_fast, key=_order), ()


def what_would_reach(front: Sequence[Figured], budget: Budget) -> str:
    """The loosened limits that the files at hand would keep, as options of the command line.

    Each alternative loosens as few limits as any file allows; "" when the budget is met.
    """
    limits = budget.limits()
    misses = [
        budget.misses(c.measurements) for c in front if limits.keys() <= c.measurements.keys()
    ]
    if not misses or any(not missed for missed in misses):
        return ""
    fewest = min(len(missed) for missed in misses)
    best: dict[tuple[str, ...], tuple[Miss, ...]] = {}
    for missed in (m for m in misses if len(m) == fewest):
        key = tuple(miss.quantity for miss in missed)
        if key not in best or _overrun(missed) < _overrun(best[key]):
            best[key] = missed
    options = (" ".join(_option(miss) for miss in missed) for missed in best.values())
    return "the files at hand would keep " + ", or ".join(options)


def label_gains(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with a label on every file that is not better than its parent.

    The parent of a file that was exported from a network is the file of that network's own
    parent, if it has one, else that of the nearest ancestor, else the first file of all, which is
    the original's.
    """
    known = {c.id: c for c in candidates}
    files = {c.parent: c for c in candidates if c.kind == "artifact" and c.stage == "export"}
    first = next((c for c in candidates if "ratio" in c.measurements), None)
    return [_labelled(c, _compared_with(c, known, files) or first) for c in candidates]


def label_losses(candidates: Sequence[Candidate], budget: Budget) -> list[Candidate]:
    """The candidates with a label on every file whose drop breaks the budget's limit."""
    return [
        c.labelled(LOSES) if any(m.quantity == "drop" for m in budget.misses(c.measurements)) else c
        for c in candidates
    ]


def _labelled(candidate: Candidate, parent: Candidate | None) -> Candidate:
    timed = candidate.kind == "artifact" and "ratio" in candidate.measurements
    if parent is None or parent.id == candidate.id or not timed:
        return candidate
    ours, theirs = candidate.measurements, parent.measurements
    if beats(ours.get("ratio"), theirs.get("ratio")):
        return candidate
    if any(beats(ours.get(q), theirs.get(q)) for q in RANKED):
        # A packed file is the same network: it cannot be faster, and is not meant to be.
        return candidate if candidate.stage == "pack" else candidate.labelled(NOT_FASTER)
    return candidate.labelled(NO_GAIN)


def _compared_with(
    candidate: Candidate, known: Mapping[str, Candidate], files: Mapping[str | None, Candidate]
) -> Candidate | None:
    ancestor = candidate.parent
    while ancestor is not None:
        for found in (known.get(ancestor), files.get(ancestor)):
            if found is not None and found.id != candidate.id and "ratio" in found.measurements:
                return found
        ancestor = known[ancestor].parent if ancestor in known else None
    return None


def _value(candidate: Figured, quantity: str) -> float:
    figure = candidate.measurements.get(quantity)
    return math.nan if figure is None else figure.value


def _order(candidate: Figured) -> tuple[Any, ...]:
    """Least loss, then smallest, then fastest; unmeasured ones last; the id settles ties."""
    known = (_value(candidate, q) for q in ("drop", "bytes", "ratio"))
    return (*(math.inf if math.isnan(v) else v for v in known), candidate.id)


def _overrun(missed: Iterable[Miss]) -> float:
    return sum(miss.got / max(miss.limit, 1e-9) for miss in missed)


def _option(miss: Miss) -> str:
    """The option of the command line that this file would keep, rounded so that it does."""
    if miss.quantity == "latency":
        return f"--max-latency {format_ms(rounded_up(miss.got)).replace(' ', '')}"
    if miss.quantity == "bytes":
        return f"--max-size {format_bytes(rounded_up(miss.got)).replace(' ', '')}"
    if miss.quantity == "drop":
        return f"--max-drop {rounded_up(miss.got):g}"
    return f"--max-{miss.quantity} {format_count(rounded_up(miss.got)).replace(' ', '')}"
