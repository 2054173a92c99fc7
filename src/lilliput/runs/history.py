"""What a journal's events add up to: the candidates with their latest figures, and the failures.

The events that are understood:

    session    a process began to work: machine, versions, command (`RunFolder` notes it)
    data       name, number of examples, hash, `synthetic`: what the figures were taken on
    failed     stage, number, candidate (the parent's id), error, kind; also as the result of `once`
    stage      number, name, seconds, made: a list of id, parent, settings and figures
    finished   best (an id or null), missed (list of misses), seconds
    any other, and every result of `once`: a record under `candidate`, or records under
               `candidates`, is that candidate's latest state; sentences under `warnings` are for
               the reader; `sensitivity` is {layer: error} of the file whose id is `candidate`;
               `anatomy` and `samples` are of the file whose id is `of`; `sensitivities` are the
               figures of a model, the latest of each model count; `generation`, `rung` and
               `front` are facts of a search, which they name under `search`

Notes of any other shape are kept in the journal and not needed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lilliput.attempts import FAILED
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
    """A run as its journal tells it.

    `exhibits` holds "anatomy" and "samples" by candidate, `sensitivities` what was found out of
    the layers of a model, by its name; `generations`, `rungs` and `fronts` those of each search, by
    its name.
    """

    records: Mapping[str, Record] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    sessions: tuple[Mapping[str, Any], ...] = ()
    stages: tuple[Mapping[str, Any], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    sensitivity: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    exhibits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sensitivities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    generations: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    rungs: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    fronts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    finished: Mapping[str, Any] | None = None
    began: str = ""
    ended: str = ""

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> History:
        """Replay the events, oldest first."""
        replay = _Replay()
        for entry in entries:
            replay.take(entry)
        return cls(
            records=replay.records,
            failures=tuple(replay.failures.values()),
            sessions=tuple(replay.sessions),
            stages=tuple(replay.stages[number] for number in sorted(replay.stages)),
            data=replay.data,
            warnings=tuple(dict.fromkeys(replay.warnings)),
            sensitivity=replay.sensitivity,
            exhibits=replay.exhibits,
            sensitivities=replay.sensitivities,
            generations=replay.generations,
            rungs=replay.rungs,
            fronts=replay.fronts,
            finished=replay.finished,
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


@dataclass
class _Replay:
    """What the events so far add up to."""

    records: dict[str, Record] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    sessions: list[Mapping[str, Any]] = field(default_factory=list)
    stages: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    sensitivity: dict[str, Mapping[str, float]] = field(default_factory=dict)
    exhibits: dict[str, dict[str, Any]] = field(default_factory=dict)
    sensitivities: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    generations: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    rungs: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    fronts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    finished: Mapping[str, Any] | None = None

    def take(self, entry: Entry) -> None:
        facts = entry.facts
        if entry.event == "session":
            self.sessions.append(facts)
        elif entry.event == "data":
            self.data.update(facts)
        elif entry.event == "finished":
            self.finished = facts
        elif entry.event == "stage":
            number = int(facts.get("number", 0))
            # A resumed run passes a finished stage again, in no time.
            before = self.stages.get(number, {}).get("seconds", 0.0)
            self.stages[number] = {**facts, "seconds": max(facts.get("seconds", 0.0), before)}
        elif entry.event == "failed":
            failure = _failure_in(facts)
            key = stage_key(failure.number, failure.stage, failure.candidate)
            self.failures[key] = failure
        else:
            # What failed once and was done in a later session did not fail.
            key = str(facts.get("key"))
            self.failures.pop(key, None)
            told = facts["result"] if entry.event == ONCE else facts
            if isinstance(told, Mapping):
                if isinstance(told.get(FAILED), Mapping):
                    self.failures[key] = _failure_in(told[FAILED])
                self.records.update({record.id: record for record in _records_in(told)})
                self._remark(told)

    def _remark(self, told: Mapping[str, Any]) -> None:
        sentences = told.get("warnings")
        self.warnings += map(str, sentences if isinstance(sentences, list) else ())
        if told.get("sensitivity"):
            self.sensitivity[str(told.get("candidate"))] = told["sensitivity"]
        if isinstance(found := told.get("sensitivities"), Mapping):
            self.sensitivities[str(found.get("model"))] = found
        for kept, word in ((self.generations, "generation"), (self.rungs, "rung")):
            if isinstance(found := told.get(word), Mapping) and "search" in found:
                kept.setdefault(str(found["search"]), []).append(found)
        if isinstance(found := told.get("front"), Mapping) and "search" in found:
            before = self.fronts.get(str(found["search"]), {}).get("members", [])
            members = [*before, *found.get("members", [])]
            self.fronts[str(found["search"])] = {**found, "members": members}
        for name in ("anatomy", "samples"):
            if isinstance(told.get(name), Mapping):
                self.exhibits.setdefault(str(told.get("of")), {})[name] = told[name]


def _failure_in(facts: Mapping[str, Any]) -> Failure:
    return Failure(**{k: v for k, v in facts.items() if k in Failure.model_fields})


def _records_in(told: Mapping[str, Any]) -> Iterator[Record]:
    several = told.get("candidates")
    for stored in (told.get("candidate"), *(several if isinstance(several, list) else ())):
        if isinstance(stored, Mapping) and {"id", "stage", "measurements"} <= stored.keys():
            yield record_from_json(stored)
