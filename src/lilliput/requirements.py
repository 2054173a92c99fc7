"""Whether each stage can take what the recipe gives it, asked before anything is spent.

A recipe's text says whether its stages fit in a row. The opened model and data say the rest: names
of layers that are not there, labels that are missing, a graph that is fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.errors import LilliputError, Refused
from lilliput.recipe import check_chain, one_by_one
from lilliput.recipe.mistakes import Mistake, field_of
from lilliput.steps.base import Kind, Stage, Step


def refusals(stages: Sequence[Stage], context: Context) -> list[LilliputError]:
    """What the stages that work on what the original is, a network or a file, say against it.

    The original stands for what earlier stages will make of it: they take parts away, so that a
    layer which is missing now is missing then. After one that makes new layers none is asked.

    Returns:
        One error a stage, with its place in the recipe; none if all can be done.
    """
    original, listed = context.original, dict(enumerate(stages))
    start: Kind = "artifact" if original.network is None else "network"
    chain = check_chain(listed, start)
    if chain:
        return [_in_recipe(mistake) for mistake in chain]
    found = []
    for place, stage in one_by_one(listed):
        error = _refusal(stage, original, context) if stage.takes == start else None
        found += [_in_recipe((place, error))] if error is not None else []
        if stage.renames:
            break
    return found


def _refusal(stage: Stage, original: Candidate, context: Context) -> LilliputError | None:
    """Why the stage cannot take the original; None if it can, or has nothing to do with it."""
    try:
        stage.check_kind(original)
        if not isinstance(stage, Step) or stage.has_work(original, context):
            stage.requires(original, context)
    except LilliputError as error:
        return error
    return None


def _in_recipe(mistake: Mistake) -> LilliputError:
    place, error = mistake
    at = ": ".join(filter(None, (field_of(("stages", *place)), error.at)))
    return Refused(error.thing, at=at, hint=error.hint)
