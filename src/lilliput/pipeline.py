"""A recipe from end to end: prepare, run the stages, measure every file, keep the front.

What users see is taken here, from files: costs, latency on the target in sessions that hold the
original too, quality on validation for the choice, and the test split once, for the files that
are left.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from lilliput.artifact import Artifact
from lilliput.atomic import write_atomically
from lilliput.attempts import attempt, failure
from lilliput.candidate import Candidate
from lilliput.context import Context, Progress, SilentProgress
from lilliput.distill.speed import torch_threads
from lilliput.errors import CannotWrite, LilliputError
from lilliput.exhibits import note_exhibits
from lilliput.forecast import Forecast, foreseen
from lilliput.meter.bfloat16 import twins
from lilliput.meter.candidates import Yardstick, with_cost, with_latency
from lilliput.opening import describe, input_warnings, opened, without_truth
from lilliput.recipe import Recipe
from lilliput.reports.files import write_report
from lilliput.runs.folder import RunFolder
from lilliput.runs.front import label_gains, label_losses, pareto, recommend
from lilliput.runs.result import RunResult
from lilliput.staging import restore, run_stages, store
from lilliput.steps.export import Export
from lilliput.teacher import introduced
from lilliput.unseen import with_unseen_validation

LAST_SECONDS = 5.0
"""For timing up to ten files side by side when the user waits for the prompt."""


@dataclass(frozen=True)
class Prepared:
    """What a run starts from: the context and the original as a file, the reference of all."""

    context: Context
    original: Candidate
    reference: Candidate


def execute(
    recipe: Recipe,
    run: RunFolder,
    progress: Progress | None = None,
    *,
    context: Context | None = None,
    warnings: tuple[str, ...] | None = None,
) -> RunResult:
    """Run the recipe in this folder, or go on with it; what is finished is not done again.

    However it ends, the files that were made are measured, and the best so far is delivered: on
    Ctrl-C in a few seconds, before the KeyboardInterrupt is passed on; a second one ends it now.

    Args:
        recipe: What to do.
        run: Where everything is kept.
        progress: Watches.
        context: What the recipe names, if it was opened before.
        warnings: What is suspicious about it, if that was looked into before.

    Returns:
        The run's front, its recommended file and, when the budget is missed, by how much.

    Raises:
        LilliputError: Nothing came out of a stage.
        CannotWrite: The disk is full; go on with the run when there is room.
    """
    began = time.monotonic()
    # Exports and cuts are many small operations: a second thread slows them down, and beside a
    # busy process it stalls them. Trainings choose their own number.
    with torch_threads(1):
        prepared = prepare(
            context or opened(recipe), run, progress or SilentProgress(), warnings=warnings
        )
        ahead = _ahead(recipe, prepared.context)
        made = {prepared.original.id: prepared.original}
        try:
            for candidate in run_stages(
                recipe.stages, [prepared.original], prepared.context, ahead=ahead
            ):
                made[candidate.id] = candidate
            measured = measure(_files(made.values(), prepared), prepared)
            return conclude(measured, prepared, run, seconds=time.monotonic() - began)
        except CannotWrite:
            raise
        except (KeyboardInterrupt, LilliputError):
            leave_best_so_far(_files(made.values(), prepared), prepared, run)
            raise


def _ahead(recipe: Recipe, context: Context) -> Forecast:
    """How long the run will take, judged once: a resumed run says what is left of the same."""

    def work() -> dict[str, Any]:
        return foreseen(recipe.stages, context).as_json()

    return Forecast.from_json(context.journal.once("how long it takes", work))


def _files(candidates: Iterable[Candidate], prepared: Prepared) -> list[Candidate]:
    """Those that are files, without the reference, and what else they are in bfloat16."""
    reference = prepared.reference
    files = [c for c in candidates if c.artifact is not None and c.id != reference.id]
    return [*files, *twins([reference, *files], prepared.context)]


def prepare(
    given: Context,
    run: RunFolder,
    progress: Progress,
    *,
    warnings: tuple[str, ...] | None = None,
) -> Prepared:
    """Everything into the run's folder; the original exported, and the examples described."""
    context = replace(
        given,
        folder=run.files,
        networks=run.networks,
        root=run.path,
        checkpoints=run.checkpoints,
        answers=run.answers,
        journal=run.journal,
        progress=progress,
    )
    for warning in _warnings(context, warnings):
        progress.say(f"warning: {warning}")
    data, why = with_unseen_validation(context)
    context = replace(context, data=data)
    untold = without_truth(data)
    for sentence in filter(None, (why, untold, introduced(context))):
        progress.say(sentence)
    told = {"seed": context.seed, "validation_from_test": why, "without_truth": untold}
    run.journal.note("data", **{**describe(data), **told})
    return Prepared(context, context.original, _reference(context.original, context))


def _warnings(context: Context, known: tuple[str, ...] | None) -> list[str]:
    """What is suspicious about the inputs, looked into once a run."""

    def work() -> dict[str, Any]:
        return {"warnings": input_warnings(context) if known is None else known}

    found: list[str] = context.journal.once("are inputs those of training", work)["warnings"]
    return found


def _reference(original: Candidate, context: Context) -> Candidate:
    """The original as a float file of the run, whatever form it came in."""

    def work() -> dict[str, Any]:
        if original.artifact is None:
            step = Export()
            name = step.child_id(original.id)
            made = step.apply(replace(original, id=name), context)
            made = replace(made, id=name, parent=original.id, stage=step.name)
        else:
            path = context.folder / f"original{original.artifact.path.suffix}"
            write_atomically(path, original.artifact.path.read_bytes())
            metadata = original.artifact.metadata
            made = replace(original, artifact=Artifact.of(path, metadata=metadata))
        return {"candidate": store(made, context)}

    return restore(context.journal.once("reference", work)["candidate"], context)


def measure(
    files: Sequence[Candidate], prepared: Prepared, *, key: str = "measured"
) -> list[Candidate]:
    """Reference first, then every file that runs: cost, validation quality, latency beside it.

    A file that the runtime cannot take, or crashes on, is a row among the failures.

    Args:
        files: All but the reference.
        prepared: Context and reference.
        key: Under which the journal keeps the figures.
    """
    context = prepared.context
    scored = _scored(files, prepared)

    def work() -> dict[str, Any]:
        labelled = label_losses(label_gains(_timed(scored, context)), context.budget)
        return {"candidates": [store(c, context) for c in labelled]}

    done = context.journal.once(f"{key} {'+'.join(c.id for c in scored[1:])}", work)
    return [restore(stored, context) for stored in done["candidates"]]


def _scored(files: Sequence[Candidate], prepared: Prepared) -> list[Candidate]:
    """Cost and validation quality of the reference, and of every file that runs."""
    context, reference = prepared.context, prepared.reference

    @cache
    def yardstick() -> Yardstick:
        split = context.data.split("validation")
        return Yardstick.of(reference.the_artifact(), split, context)

    def scored(candidate: Candidate) -> dict[str, Any]:
        judged = yardstick().judge(with_cost(candidate), context)
        return {"candidate": store(judged, context)}

    found = [context.journal.once(f"scored {reference.id}", lambda: scored(reference))]
    for file in context.progress.track(files, label="scoring files"):
        done = attempt(
            f"scored {file.id}",
            partial(scored, file),
            context,
            stage="measure",
            candidate=file.id,
        )
        found += [done] if done is not None else []
    return [restore(done["candidate"], context) for done in found]


def _timed(candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
    """All with their latency beside the first; one that crashes the runtime is left out."""
    reference, *others = candidates
    while True:
        try:
            return with_latency([reference, *others], reference, context)
        except LilliputError as error:
            culprit = next((c for c in others if c.the_artifact().path.name == error.at), None)
            if culprit is None:
                raise
            told = failure(error, stage="measure", candidate=culprit.id)
            context.progress.say(f"measure of {culprit.id}: failed: {told['error']}")
            context.journal.note("failed", **told)
            others.remove(culprit)


def conclude(
    measured: Sequence[Candidate], prepared: Prepared, run: RunFolder, *, seconds: float
) -> RunResult:
    """The front, the recommended file, the test split's one look, and the report."""
    context = prepared.context
    front = pareto(measured)
    best, missed = recommend(front, context.budget)
    wanted = {c.id for c in (measured[0], *front, *([best] if best else []))}
    tested = tested_once([c for c in measured if c.id in wanted], prepared)
    by_id = {c.id: c for c in measured} | {c.id: c for c in tested}
    best = by_id[best.id] if best is not None else None
    if best is not None:
        run.deliver(best.the_artifact())
        note_exhibits(best, prepared.reference, context)
    context.journal.note(
        "finished",
        best=best.id if best else None,
        missed=[miss.model_dump() for miss in missed],
        seconds=round(seconds, 1),
    )
    write_report(run)
    return RunResult.of(run)


def leave_best_so_far(files: Sequence[Candidate], prepared: Prepared, run: RunFolder) -> None:
    """Measure in a few seconds what there is, deliver the best of it, and write the report.

    The test split is not looked at: the run is not at its end.
    """
    context = prepared.context
    if not files:
        return
    context.progress.say(f"stopping: measuring the {len(files)} files that are there")
    try:
        brief = replace(prepared, context=replace(context, timing_seconds=LAST_SECONDS))
        measured = measure(files, brief, key="so far")
        best, missed = recommend(pareto(measured), context.budget)
        if best is not None:
            run.deliver(best.the_artifact())
        context.journal.note(
            "stopped",
            best=best.id if best else None,
            missed=[miss.model_dump() for miss in missed],
        )
        write_report(run)
    except Exception as error:  # noqa: BLE001  # what ended the run is what is told
        context.progress.say(f"what is there could not be measured: {error}")


def tested_once(wanted: Sequence[Candidate], prepared: Prepared) -> list[Candidate]:
    """Final figures on the test split: "test_metric" and "test_drop", paired with the original."""
    context = prepared.context
    if not len(context.data.test):
        return list(wanted)

    def work() -> dict[str, Any]:
        yardstick = Yardstick.of(prepared.reference.the_artifact(), context.data.test, context)
        return {
            "candidates": [
                store(yardstick.judge(c, context, prefix="test_"), context)
                for c in context.progress.track(wanted, label="final scores on test")
            ]
        }

    key = "tested " + "+".join(c.id for c in wanted)
    return [restore(stored, context) for stored in context.journal.once(key, work)["candidates"]]
