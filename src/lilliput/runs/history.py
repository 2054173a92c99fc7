"""What a journal's events add up to: the candidates with their latest figures, and the failures.

The events that are understood:

    session    a process began to work: machine, versions, command (`RunFolder` notes it)
    data       name, number of examples, hash, `synthetic`: what the figures were taken on
    failed     stage, number, candidate (the parent's id), error, kind
    finished   best (an id or null), missed (list of misses), seconds
    any other, and every result of `once`: a record under `candidate`, or records under
               `candidates`, is that candidate's latest state

Notes of any other shape are kept in the journal and not needed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lilliput.noun import Noun
from lilliput.runs.journal import ONCE, Entry
from lilliput.runs.record import Record, record_from_json


class Failure(Noun):
    """A stage that could not handle a candidate; the run went on without it."""

    stage: str
    candidate: str
    error: str
    kind: str = ""
    number: int = 0


def stage_key(number: int, stage: str, parent: str) -> str:
    """The journal key of what stage `number` of a recipe made of the candidate `parent`."""
    return f"{number:02d}.{stage}/{parent}"


@dataclass(frozen=True)
class History:
    """A run as its journal tells it."""

    records: Mapping[str, Record] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    sessions: tuple[Mapping[str, Any], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    finished: Mapping[str, Any] | None = None
    began: str = ""
    ended: str = ""

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> History:
        """Replay the events, oldest first."""
        records: dict[str, Record] = {}
        failures: dict[str, Failure] = {}
        data: dict[str, Any] = {}
        sessions, finished = [], None
        for entry in entries:
            facts = entry.facts
            if entry.event == "session":
                sessions.append(facts)
            elif entry.event == "data":
                data.update(facts)
            elif entry.event == "finished":
                finished = facts
            elif entry.event == "failed":
                failure = Failure(**{k: v for k, v in facts.items() if k in Failure.model_fields})
                key = stage_key(failure.number, failure.stage, failure.candidate)
                failures[key] = failure
            else:
                # What failed once and was done in a later session did not fail.
                failures.pop(str(facts.get("key")), None)
                records.update({record.id: record for record in _records_in(entry)})
        return cls(
            records=records,
            failures=tuple(failures.values()),
            sessions=tuple(sessions),
            data=data,
            finished=finished,
            began=entries[0].time if entries else "",
            ended=entries[-1].time if entries else "",
        )

    @property
    def files(self) -> tuple[Record, ...]:
        """The candidates that are files, in the order of their making."""
        return tuple(r for r in self.records.values() if r.artifact is not None)

    @property
    def seed(self) -> Any:
        return self.data.get("seed")


def _records_in(entry: Entry) -> Iterator[Record]:
    facts = entry.facts["result"] if entry.event == ONCE else entry.facts
    if not isinstance(facts, Mapping):
        return
    several = facts.get("candidates")
    for stored in (facts.get("candidate"), *(several if isinstance(several, list) else ())):
        if isinstance(stored, Mapping) and {"id", "stage", "measurements"} <= stored.keys():
            yield record_from_json(stored)
