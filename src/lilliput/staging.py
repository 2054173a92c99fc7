"""Runs stages over candidates, every result on disk before the next begins.

The journal is the truth. A stage's work on a candidate is done once per run; a resumed run reads
what was done and goes on. A candidate that fails is a row of the report, not the end of the run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.errors import LilliputError
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import metric_of
from lilliput.models.session import scores_in_torch
from lilliput.models.store import load_saved, save_network
from lilliput.network import Network
from lilliput.runs.history import stage_key
from lilliput.runs.record import candidate_from_json, candidate_to_json
from lilliput.steps.base import Search, Selection, Stage, Step

PROXY_EXAMPLES = 2000
"""Validation examples that a network is scored on between stages; files see all of them."""

RECOVERABLE = (LilliputError, RuntimeError, ValueError, ArithmeticError, TypeError, KeyError)
"""What one candidate may raise without ending the run."""


def run_stages(
    stages: Sequence[Stage], candidates: Sequence[Candidate], context: Context
) -> list[Candidate]:
    """All candidates that came out of any stage, in the order of their making.

    Each stage works on what the stage before it gave; what earlier stages gave stays a candidate
    for the front.

    Raises:
        LilliputError: A stage gave nothing at all.
    """
    current, made = list(candidates), {c.id: c for c in candidates}
    for number, stage in enumerate(stages, 1):
        began = time.perf_counter()
        context.progress.say(f"stage {number} of {len(stages)}: {stage.name}")
        if isinstance(stage, Selection):
            current = stage.choose(current, context)
        else:
            current = [
                child for parent in current for child in _children(number, stage, parent, context)
            ]
        made |= {c.id: c for c in current}
        context.journal.note(
            "stage",
            number=number,
            name=stage.name,
            candidates=[c.id for c in current],
            made=[_told(c) for c in current],
            seconds=round(time.perf_counter() - began, 3),
        )
        if not current:
            raise LilliputError(
                f"nothing came out of stage {number} ({stage.name}): every candidate failed",
                at=str(context.folder),
                hint="the reasons are in the report's last table",
            )
    return list(made.values())


def _told(candidate: Candidate) -> dict[str, Any]:
    """What a report shows of a candidate that is not a file yet."""
    figures = {
        name: figure.model_dump(mode="json")
        for name, figure in candidate.measurements.items()
        if name in ("proxy", "metric")
    }
    parent, settings = candidate.parent, dict(candidate.settings)
    return {"id": candidate.id, "parent": parent, "settings": settings, "figures": figures}


def _children(
    number: int, stage: Stage, parent: Candidate, context: Context
) -> Iterator[Candidate]:
    """What one stage makes of one candidate; a failure is noted and yields nothing."""
    try:
        stage.check_kind(parent)
        stage.requires(parent, context)
        if isinstance(stage, Step):
            yield _once(number, stage, parent, context)
        elif isinstance(stage, Search):
            yield from stage.explore(parent, context)
    except RECOVERABLE as error:
        if os.environ.get("LILLIPUT_DEBUG"):
            raise
        context.progress.say(f"{stage.name} failed on {parent.id}: {error}")
        context.journal.note(
            "failed",
            stage=stage.name,
            number=number,
            candidate=parent.id,
            kind=type(error).__name__,
            error=str(error),
        )


def _once(number: int, stage: Step, parent: Candidate, context: Context) -> Candidate:
    """The step's result on this candidate, done now or read from the journal."""
    name = stage.child_id(parent.id)

    def work() -> dict[str, Any]:
        began = time.perf_counter()
        child = stage.apply(replace(parent, id=name), context)
        child = _described(replace(child, id=name), stage, parent)
        if child.network is not None:
            child = with_proxy_metric(child, context)
        seconds = round(time.perf_counter() - began, 3)
        return {"candidate": store(child, context), "seconds": seconds}

    done = context.journal.once(stage_key(number, stage.name, parent.id), work)
    return restore(done["candidate"], context)


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
    scores = scores_in_torch(network, split.head(PROXY_EXAMPLES), context)
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
