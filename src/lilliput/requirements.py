"""Whether each stage can take what the recipe gives it, asked before anything is spent.

A recipe's text says whether its stages fit in a row. The opened model and data say the rest: names
of layers that are not there, labels that are missing, a graph that is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lilliput.candidate import Candidate
from lilliput.context import Context, SilentJournal, SilentProgress
from lilliput.errors import LilliputError, Refused
from lilliput.recipe import check_chain, one_by_one
from lilliput.recipe.mistakes import Mistake, field_of
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.opening import those_that_open
from lilliput.steps.base import Kind, Stage, Step
from lilliput.steps.export import Export

WRITTEN = ".onnx"
"""What files of a run, its reference among them, are written as; `.lil` unpacks to it."""


def refusals(stages: Sequence[Stage], context: Context) -> list[LilliputError]:
    """What the stages and the measuring at the end say against model and data.

    The original, and the file that it is exported to, stand for what earlier stages will make of
    them: those take parts away, so that a layer which is missing now is missing then. After a
    stage that makes new layers none is asked.

    Returns:
        One error a stage, with its place in the recipe; none if all can be done.
    """
    original, listed = context.original, dict(enumerate(stages))
    start: Kind = "artifact" if original.network is None else "network"
    chain = check_chain(listed, start)
    if chain:
        return [_in_recipe(mistake) for mistake in chain]
    with TemporaryDirectory(prefix="lilliput-check-") as folder:
        aside = replace(
            context, folder=Path(folder), journal=SilentJournal(), progress=SilentProgress()
        )
        return [*_unmeasurable(context), *map(_in_recipe, _refused(listed, original, aside))]


def _unmeasurable(context: Context) -> Iterator[LilliputError]:
    """Why no file of the run could be judged or timed."""
    try:
        context.data.split("validation")
    except LilliputError as error:
        yield error
    opened = RUNTIMES[context.target.runtime].formats
    if WRITTEN not in opened:
        yield Refused(
            f"a run measures {WRITTEN} files, and {context.target.runtime} opens "
            f"{', '.join(opened)}",
            at="target.runtime",
            hint=f"give one of {', '.join(those_that_open(WRITTEN))}",
        )


def _refused(
    stages: Mapping[int, Stage], original: Candidate, context: Context
) -> Iterator[Mistake]:
    """What each stage says of the original, or of its file."""
    known = {original.kind: original}
    for place, stage in one_by_one(stages):
        stands_in = known.get(stage.takes)
        if stands_in is not None:
            try:
                _ask(stage, stands_in, context)
                if isinstance(stage, Export) and "artifact" not in known:
                    known["artifact"] = stage.apply(stands_in, context)
            except LilliputError as error:
                yield place, error
        if stage.renames:
            break


def _ask(stage: Stage, original: Candidate, context: Context) -> None:
    """Raises what the stage has against the original, if it has anything to do with it."""
    stage.check_kind(original)
    if not isinstance(stage, Step) or stage.has_work(original, context):
        stage.requires(original, context)


def _in_recipe(mistake: Mistake) -> LilliputError:
    place, error = mistake
    at = ": ".join(filter(None, (field_of(("stages", *place)), error.at)))
    return Refused(error.thing, at=at, hint=error.hint)
