"""Runs stages over candidates, every result on disk before the next begins.

The journal is the truth. A stage's work on a candidate is done once per run; a resumed run reads
what was done and goes on. A candidate that fails is a row of the report, not the end of the run.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from lilliput.attempts import AGAIN, FAILED, attempt, failure
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.errors import LilliputError
from lilliput.forecast import Forecast, told
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import metric_of
from lilliput.models.session import scores_in_torch
from lilliput.models.store import load_saved, save_network
from lilliput.network import Network
from lilliput.runs.history import stage_key
from lilliput.runs.record import candidate_from_json, candidate_to_json
from lilliput.steps.arms import Arms, length, numbered
from lilliput.steps.base import Search, Selection, Stage, Step

PROXY_EXAMPLES = 2000
"""Validation examples that a network is scored on between stages; files see all of them."""


class NothingCame(LilliputError):
    """A stage gave nothing at all: every candidate failed."""


@dataclass(frozen=True)
class Arm:
    """One of several ways from the same candidates: what it makes of them has its name in it."""

    name: str
    entered: frozenset[str]

    def stem(self, parent: str) -> str:
        """What the child of this candidate is named after."""
        return f"{parent}-{self.name}" if parent in self.entered else parent


NO_ARM = Arm("", frozenset())


@dataclass(frozen=True)
class _Lines:
    """What is said when a stage begins."""

    total: int
    ahead: Forecast | None

    def line(self, number: int, stage: Stage, arm: Arm) -> str:
        within = f" ({arm.name})" if arm.name else ""
        said = f"stage {number} of {self.total}: {stage.name}{within}"
        if self.ahead is None:
            return said
        its, left = self.ahead.stages[number - 1], self.ahead.left(number)
        return f"{said}, {told(its)}; to the end of the run {told(left)}"


def run_stages(
    stages: Sequence[Stage],
    candidates: Sequence[Candidate],
    context: Context,
    *,
    ahead: Forecast | None = None,
) -> Iterator[Candidate]:
    """Every candidate that comes out of any stage, as soon as it is stored.

    Each stage works on what the stage before it gave; what earlier stages gave stays a candidate
    for the front. On Ctrl-C the networks that were to be exported next still become files. What is
    known to lie `ahead` is told with each stage.

    Raises:
        NothingCame: A stage gave nothing at all.
    """
    plan = list(numbered(stages))
    lines = _Lines(length(stages), ahead)
    yield from _in_turn(plan, candidates, context, NO_ARM, lines)


def _in_turn(
    plan: Sequence[tuple[int, Stage]],
    candidates: Sequence[Candidate],
    context: Context,
    arm: Arm,
    lines: _Lines,
) -> Generator[Candidate, None, list[Candidate]]:
    """All that the stages make; returned is what came out of the last one."""
    current = list(candidates)
    for at, (number, stage) in enumerate(plan):
        if isinstance(stage, Arms):
            current = yield from _arms(number, stage, current, context, lines)
            continue
        began = time.perf_counter()
        context.progress.say(lines.line(number, stage, arm))
        came: list[Candidate] = []
        try:
            for child in _results(number, stage, current, context, arm):
                came.append(child)
                yield child
        except KeyboardInterrupt:
            yield from _exported(plan[at + 1 : at + 2], came, context, arm)
            raise
        context.journal.note(
            "stage",
            number=number,
            name=stage.name,
            candidates=[c.id for c in came],
            made=[_told(c) for c in came],
            seconds=round(time.perf_counter() - began, 3),
        )
        if not came:
            raise NothingCame(
                f"nothing came out of stage {number} ({stage.name}): every candidate failed",
                at=str(context.folder),
                hint="the reasons are in the report's last table; when they are mended, "
                "`lilliput resume RUN --retry-failed`",
            )
        current = came
    return current


def _arms(
    first: int, stage: Arms, candidates: Sequence[Candidate], context: Context, lines: _Lines
) -> Generator[Candidate, None, list[Candidate]]:
    """Each arm from the same candidates; one that comes to nothing does not end the others."""
    entered, came = frozenset(c.id for c in candidates), []
    nothing: NothingCame | None = None
    for name, steps in stage.branches.items():
        plan = list(numbered(steps, first))
        try:
            came += yield from _in_turn(plan, candidates, context, Arm(name, entered), lines)
        except NothingCame as error:
            context.progress.say(f"arm {name}: {error.thing}")
            nothing = error
        first += length(steps)
    if nothing is not None and not came:
        raise nothing
    # What had no work in several arms is one candidate still.
    return list({c.id: c for c in came}.values())


def _results(
    number: int, stage: Stage, candidates: Sequence[Candidate], context: Context, arm: Arm
) -> Iterator[Candidate]:
    """What one stage makes of all candidates."""
    if isinstance(stage, Selection):
        yield from stage.choose(candidates, context)
        return
    for parent in candidates:
        if isinstance(stage, Step):
            if not stage.has_work(parent, context):
                yield parent
                continue
            yield from _child(number, stage, parent, context, arm)
        elif isinstance(stage, Search):
            yield from _children(number, stage, parent, context)


def _exported(
    following: Sequence[tuple[int, Stage]],
    networks: Sequence[Candidate],
    context: Context,
    arm: Arm,
) -> Iterator[Candidate]:
    """The networks as files, if writing files is what the following stage does."""
    for number, stage in following:
        if isinstance(stage, Step) and (stage.takes, stage.gives) == ("network", "artifact"):
            yield from _results(number, stage, networks, context, arm)


def _told(candidate: Candidate) -> dict[str, Any]:
    """What a report shows of a candidate that is not a file yet."""
    figures = {
        name: figure.model_dump(mode="json")
        for name, figure in candidate.measurements.items()
        if name in ("proxy", "proxy_drop", "metric")
    }
    parent, settings = candidate.parent, dict(candidate.settings)
    return {"id": candidate.id, "parent": parent, "settings": settings, "figures": figures}


def _child(
    number: int, stage: Step, parent: Candidate, context: Context, arm: Arm
) -> Iterator[Candidate]:
    """The step's result on this candidate, done now or read from the journal; or nothing."""
    name = stage.child_id(arm.stem(parent.id))

    def work() -> dict[str, Any]:
        began = time.perf_counter()
        stage.check_kind(parent)
        stage.requires(parent, context)
        child = stage.apply(replace(parent, id=name), context)
        child = _described(replace(child, id=name), stage, parent)
        if child.network is not None:
            child = with_proxy_metric(child, context)
        seconds = round(time.perf_counter() - began, 3)
        return {"candidate": store(child, context), "seconds": seconds}

    key = stage_key(number, stage.name, parent.id)
    done = attempt(key, work, context, stage=stage.name, candidate=parent.id, number=number)
    if done is not None:
        yield restore(done["candidate"], context)


def _children(
    number: int, stage: Search, parent: Candidate, context: Context
) -> Iterator[Candidate]:
    """What a search makes of one candidate, up to where it fails, or failed before."""
    key, count = stage_key(number, stage.name, parent.id), 0
    before = context.journal.recall(key) or {}
    if FAILED in before:
        context.progress.say(f"{stage.name} of {parent.id}: {AGAIN}: {before[FAILED]['error']}")
    try:
        stage.check_kind(parent)
        stage.requires(parent, context)
        most = before["found"] if FAILED in before else None
        for child in islice(stage.explore(parent, context), most):
            count += 1
            yield child
    except Exception as error:  # noqa: BLE001  # whatever a user's network provokes
        told = failure(error, stage=stage.name, candidate=parent.id, number=number)
        context.progress.say(f"{stage.name} of {parent.id}: failed: {told['error']}")
        context.journal.once(key, lambda: {FAILED: told, "found": count})
    else:
        context.journal.once(key, lambda: {"found": count})


def _described(child: Candidate, stage: Stage, parent: Candidate) -> Candidate:
    settings = stage.described()
    return replace(
        child,
        parent=parent.id,
        stage=stage.name,
        settings=settings,
        history=(*parent.history, settings),
    )


def with_proxy_metric(candidate: Candidate, context: Context) -> Candidate:
    """The network's metric on some validation examples, run in torch: steers, never ranks."""
    network, split = candidate.the_network(), context.data.validation
    if not len(split) or split.targets is None:
        return candidate
    scores = scores_in_torch(network, split.sample(PROXY_EXAMPLES), context)
    figure = metric_of(scores, context.task.metric)
    proxy = figure.model_copy(update={"quantity": "proxy", "estimated": True})
    return candidate.measured(
        proxy, Measurement(quantity="params", value=network.params, unit="", estimated=True)
    )


def store(candidate: Candidate, context: Context) -> dict[str, Any]:
    """The candidate as JSON; a network goes to a file beside, a file is only referred to."""
    if candidate.network is not None:
        path = context.network_path(candidate.id)
        save_network(candidate.network, path)
    else:
        path = candidate.the_artifact().path
    return candidate_to_json(candidate, path, context.root or context.folder)


def restore(stored: dict[str, Any], context: Context) -> Candidate:
    """The candidate that `store` described, its file checked against its hash."""

    def load(path: Path) -> Network:
        return load_saved(path, context.original.the_network().module)

    return candidate_from_json(stored, context.root or context.folder, load)
