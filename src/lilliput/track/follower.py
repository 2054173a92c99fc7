"""Tells trackers what the journal says, event by event, across the sessions of a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from lilliput.context import Progress
from lilliput.runs.folder import RunFolder
from lilliput.runs.history import History
from lilliput.runs.journal import Entry
from lilliput.runs.record import Record
from lilliput.track.base import TRACKERS, Setting, Tracker

AT_FIRST, AT_LAST = ("recipe.yaml",), ("report.md", "report.html", "front.csv")
"""The documents of a run, and when they are there."""


@contextmanager
def followed(run: RunFolder, names: Sequence[str], progress: Progress) -> Iterator[None]:
    """Show the run in these trackers while the block works in it.

    What they were not told yet comes first, so a run may be tracked from any session on. A
    tracker that fails in the middle is a warning, and is left alone for the rest of the session.

    Raises:
        LilliputError: A tracker cannot be reached at the beginning.
    """
    with ExitStack() as stack:
        for name in names:
            follower = _Follower.begin(run, name, progress)
            stack.push(follower.leave)
            run.journal.follow(follower)
        yield


@dataclass
class _Follower:
    """One tracker at the journal of one run."""

    run: RunFolder
    name: str
    tracker: Tracker
    progress: Progress
    told: int = 0
    stopped: bool = False
    _figures: dict[str, dict[str, float]] = field(default_factory=dict)
    _stages: set[int] = field(default_factory=set)
    _finished: bool = False

    @classmethod
    def begin(cls, run: RunFolder, name: str, progress: Progress) -> _Follower:
        told, stored = _remembered(run.path / memory_name(name))
        tracker = TRACKERS[name](run.path, flat(run.settings()), stored)
        # Another server, or a folder that was thrown away: it knows nothing of this run.
        told = told if tracker.stored == stored else 0
        follower = cls(run, name, tracker, progress, told)
        with follower._forgiven():
            if not told:
                follower._show(AT_FIRST)
            follower._remember()
        return follower

    def __call__(self, entry: Entry) -> None:
        """Take the next event; those of earlier sessions are known and not told again."""
        if self.stopped:
            return
        with self._forgiven():
            news = [*self._news(entry)]
            if entry.number <= self.told:
                return
            for tell in news:
                tell()
            self.told = entry.number
            if news:
                self._remember()

    def leave(self, *_: object) -> None:
        """Show the documents if the run came to its end, and say that nothing more will come."""
        if self.stopped:
            return
        with self._forgiven():
            if self._finished:
                self._show(AT_LAST)
            self._remember()
            self.tracker.end(finished=self._finished)

    def _news(self, entry: Entry) -> Iterator[Callable[[], None]]:
        """What is new in this event, as calls of the tracker."""
        facts, when = entry.facts, datetime.fromisoformat(entry.time)
        if entry.event == "stage" and facts["number"] not in self._stages:
            # A resumed run passes a finished stage again, in no time.
            self._stages.add(facts["number"])
            name = f"stage seconds/{facts['number']} {facts['name']}"
            yield partial(self.tracker.curve, name, facts["seconds"], facts["number"], when)
        if entry.event == "epoch":
            name = f"loss/{facts['training']}"
            yield partial(self.tracker.curve, name, facts["loss"], facts["epoch"], when)
        if entry.event == "finished":
            self._finished = True
            yield partial(self.tracker.remark, "recommended", str(facts["best"] or "none"))
        for record in History.of([entry]).records.values():
            figures, known = figures_of(record), self._figures.setdefault(record.id, {})
            changed = {k: v for k, v in figures.items() if known.get(k) != v}
            known |= changed
            if changed:
                settings = settings_of(record)
                yield partial(self.tracker.candidate, record.id, settings, changed, when)

    def _show(self, documents: Sequence[str]) -> None:
        for path in (self.run.path / name for name in documents):
            if path.exists():
                self.tracker.document(path)

    def _remember(self) -> None:
        memory = {"told": self.told, "stored": self.tracker.stored}
        self.run.write(memory_name(self.name), json.dumps(memory, indent=1) + "\n")

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # hours of work do not end with somebody's server
            self.stopped = True
            why = (str(error).splitlines() or [type(error).__name__])[0]
            again = f"lilliput resume {shlex.quote(str(self.run.path))} --track {self.name}"
            self.progress.say(
                f"warning: tracking with {self.name} stopped: {why}; the run goes on, and "
                f"`{again}` sends the rest"
            )


def memory_name(tracker: str) -> str:
    """The file of the run's folder that says what this tracker was told."""
    return f"tracking-{tracker}.json"


def _remembered(path: Path) -> tuple[int, dict[str, str]]:
    """How many events were told, and what the tracker stored; nothing where it is unreadable."""
    try:
        memory = json.loads(path.read_bytes())
        return int(memory["told"]), dict(memory["stored"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, {}


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Setting]:
    """Nested settings under dotted names; what is unset is left out."""
    found: dict[str, Setting] = {}
    for name, value in plain.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif name == "stages" and isinstance(value, list):
            for number, stage in enumerate(value, 1):
                found |= flat(stage, f"{prefix}stages.{number}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value if isinstance(value, (int, float)) else str(value)
    return found


def figures_of(record: Record) -> dict[str, float]:
    """Its figures, with the ends of their intervals; as in front.csv, times have their unit."""
    found: dict[str, float] = {}
    for quantity, figure in record.measurements.items():
        name = f"{quantity}_ms" if figure.unit == "ms" else quantity
        found[name] = figure.value
        if figure.interval is not None:
            found[f"{name}_low"], found[f"{name}_high"] = figure.interval
    return found


def settings_of(record: Record) -> dict[str, Setting]:
    """How a candidate came to be: its kind and parent, and the settings of its stages."""
    about: dict[str, Setting] = {
        "kind": "network" if record.artifact is None else "file",
        "stage": record.stage,
    }
    if record.parent is not None:
        about["parent"] = record.parent
    if record.artifact is not None:
        about |= {
            "file": str(record.artifact.path),
            "precision": record.artifact.metadata.precision,
        }
    for settings in record.history:
        about |= flat(settings)
    return about
