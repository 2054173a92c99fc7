"""All that a report says of a run, worked out once for every form of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lilliput.budget import Budget, Miss
from lilliput.measurement import Measurement
from lilliput.meter.anatomy import Anatomy
from lilliput.meter.sensitivities import Sensitivities
from lilliput.runs.folder import RunFolder
from lilliput.runs.front import pareto, recommend, what_would_reach
from lilliput.runs.history import History
from lilliput.runs.record import Record, sha256_of
from lilliput.runs.rows import Row, rows_of
from lilliput.target import Target

SAME_MACHINE = ("cpu", "isa", "versions")
"""What must not change between the sessions of a run for its figures to be compared."""


@dataclass(frozen=True)
class Summary:
    """A run, told from its journal; files are looked at only to see whether they are unchanged."""

    path: Path
    history: History
    budget: Budget
    target: Target
    environment: Mapping[str, Any]
    rows: tuple[Row, ...]
    front: tuple[Record, ...]
    best: Record | None
    missed: tuple[Miss, ...]
    reach: str
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, run: RunFolder) -> Summary:
        """Replay the journal of this run.

        Raises:
            LilliputError: A line of the journal was changed.
        """
        history, budget = run.history(), run.budget()
        front = pareto(history.files)
        best, missed = recommend(front, budget)
        rows = rows_of(
            history.files, front={r.id for r in front}, best=best.id if best is not None else None
        )
        return cls(
            path=run.path,
            history=history,
            budget=budget,
            target=_target(run.settings().get("target")),
            environment=run.environment(),
            rows=rows,
            front=front,
            best=best,
            missed=missed,
            reach=what_would_reach(front, budget),
            warnings=tuple(_warnings(run, history, rows, budget)),
        )

    @property
    def best_file(self) -> Path | None:
        """The recommended file: its copy at the top of the run's folder once that is there."""
        if self.best is None or self.best.artifact is None:
            return None
        copy = self.path / f"best{self.best.artifact.path.suffix}"
        return copy if copy.exists() else self.path / self.best.artifact.path

    @property
    def lost_on_test(self) -> Measurement | None:
        """What the recommended file loses on test, where that is more than the limit."""
        return _lost_on_test(self.rows, self.budget)

    @property
    def anatomy(self) -> Anatomy | None:
        """The recommended file in its parts, if they were noted at the end of the run."""
        try:
            return Anatomy.model_validate(self._exhibits["anatomy"])
        except (KeyError, ValidationError):
            return None

    @property
    def samples(self) -> Mapping[str, Any]:
        """Examples with what the original and the recommended file made of them; {} if none."""
        found: Mapping[str, Any] = self._exhibits.get("samples", {})
        return found

    @property
    def sensitivity(self) -> Mapping[str, float]:
        """{layer: output error of it alone in int8} of the recommended file, where measured."""
        return self.history.sensitivity.get(self.best.id, {}) if self.best is not None else {}

    @property
    def sensitivities(self) -> tuple[Sensitivities, ...]:
        """What was found out of the layers of models, one of each model; those that can be read."""
        found = []
        for told in self.history.sensitivities.values():
            with suppress(ValidationError):
                found.append(Sensitivities.model_validate(told))
        return tuple(found)

    @property
    def _exhibits(self) -> Mapping[str, Any]:
        return self.history.exhibits.get(self.best.id, {}) if self.best is not None else {}

    @property
    def conditions(self) -> dict[str, Any]:
        """Where, on what and how the figures were taken."""
        machine = {
            key: self.environment.get(key)
            for key in ("cpu", "isa", "cores", "usable_cores", "governor", "os", "python")
        }
        timed = [row.figures["latency"].conditions for row in self.rows if "latency" in row.figures]
        return {
            "target": self.target.label,
            "threads": self.target.threads,
            "machine": {k: v for k, v in machine.items() if v is not None},
            "versions": self.environment.get("versions", {}),
            "command": self.environment.get("command", ""),
            "folder": self.environment.get("folder", ""),
            "seed": self.history.seed,
            "data": {k: v for k, v in self.history.data.items() if k != "seed"},
            "other_load_cores": _most(timed, "other_load_cores"),
            "noise_floor": _most(timed, "noise_floor"),
            "began": self.history.began,
            "ended": self.history.ended,
            "sessions": len(self.history.sessions),
            "limits": self.budget.limits(),
        }


def _target(plain: Any) -> Target:
    try:
        return Target.parse(plain) if isinstance(plain, str) else Target.model_validate(plain or {})
    except (ValidationError, ValueError):
        return Target()


def _most(timed: list[dict[str, Any]], name: str) -> float | None:
    found = [float(c[name]) for c in timed if isinstance(c.get(name), (int, float))]
    return max(found, default=None)


def _warnings(
    run: RunFolder, history: History, rows: tuple[Row, ...], budget: Budget
) -> Iterator[str]:
    """What a reader must know before believing the figures."""
    yield from (_sentence(warning) for warning in history.warnings)
    if history.data.get("synthetic"):
        yield (
            "The data is random: speed and size are real, and no figure of quality means anything."
        )
    for told in ("validation_from_test", "without_truth"):
        if why := str(history.data.get(told) or ""):
            yield _sentence(why)
    if history.finished is None:
        yield "The run is not finished: these are the files so far."
    first = history.sessions[0] if history.sessions else {}
    for number, session in enumerate(history.sessions[1:], 2):
        differing = [key for key in SAME_MACHINE if session.get(key) != first.get(key)]
        if differing:
            yield f"Session {number} ran elsewhere ({', '.join(differing)} differ from the first)."
    if (drop := _lost_on_test(rows, budget)) is not None:
        name = next(row.path.name for row in rows if row.recommended)
        yield (
            f"On the test split {name} loses {drop}, more than the limit of "
            f"{budget.max_drop:g}; it was chosen on validation."
        )
    yield from _changed_files(run, history)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _lost_on_test(rows: tuple[Row, ...], budget: Budget) -> Measurement | None:
    drop = next((row.figures.get("test_drop") for row in rows if row.recommended), None)
    beyond = drop is not None and budget.max_drop is not None and drop.value > budget.max_drop
    return drop if beyond else None


def _changed_files(run: RunFolder, history: History) -> Iterator[str]:
    for record in history.files:
        assert record.artifact is not None
        path = run.path / record.artifact.path
        if not path.exists():
            yield f"{record.artifact.path} is gone; its row tells what it was."
        elif sha256_of(path) != record.artifact.sha256:
            yield f"{record.artifact.path} was changed since; its row tells what it was."
