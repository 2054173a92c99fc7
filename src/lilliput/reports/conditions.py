"""How the figures were taken and are to be read, in sentences that every form of report has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lilliput.budget import CALLED
from lilliput.reports.summary import Summary
from lilliput.units import format_quantity, format_seconds


class Condition(NamedTuple):
    """One line; `code` is for what can be pasted into a shell."""

    label: str
    text: str
    code: bool = False


def told(summary: Summary) -> Iterator[Condition]:
    """Target, limits, machine, versions, load, data, seed, command and times."""
    found = summary.conditions
    yield Condition("target", found["target"])
    limits = ", ".join(_limit(name, value) for name, value in found["limits"].items())
    yield Condition("limits", limits or "none")
    yield Condition("machine", _pairs(found["machine"]))
    yield Condition("versions", _pairs(found["versions"]))
    yield Condition("other load", _load(found["other_load_cores"], found["noise_floor"]))
    yield Condition("data", _pairs(found["data"]))
    yield Condition("seed", str(found["seed"]))
    yield Condition("command", found["command"], code=True)
    yield Condition("folder", found["folder"], code=True)
    span = f"{found['began']} to {found['ended']}, {found['sessions']} session(s)"
    yield Condition("time", span)
    finished = summary.history.finished
    if finished is not None and "seconds" in finished:
        yield Condition("last session", format_seconds(float(finished["seconds"])))


def reading(summary: Summary) -> str:
    """What the columns of the files mean."""
    splits = sorted({row.split for row in summary.rows})
    return (
        "★ is the recommended file. Speed is that of the original file divided into, both timed "
        "in turn; faster and slower are said only when the 95 % interval excludes 1 by more "
        "than the noise. MACs and weights are counted in the graph, not measured. Quality is of "
        f"the {' and '.join(splits) or 'validation'} split; the change is paired example by "
        "example with the original."
    )


def _limit(quantity: str, value: float) -> str:
    unit = "ms" if quantity == "latency" else ""
    return f"{CALLED.get(quantity, quantity)} ≤ {format_quantity(quantity, value, unit)}"


def _load(cores: float | None, floor: float | None) -> str:
    if cores is None:
        return "nothing was timed"
    told = f"at most {cores:.2f} cores were used by others"
    return told if floor is None else f"{told}; differences below {floor:.1%} are called a tie"


def _pairs(facts: Mapping[str, Any]) -> str:
    told = []
    for key, value in facts.items():
        if value in ("", None, False):
            continue
        inner = _pairs(value) if isinstance(value, dict) else str(value)
        told.append(f"{key} ({inner})" if isinstance(value, dict) else f"{key} {inner}")
    return ", ".join(told)
