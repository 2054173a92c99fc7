"""One candidate's failure is a row of the report, not the end of the run.

A failure is remembered as a success is, so that a run that goes on does not spend the same hour on
it again. What would hit every other candidate as well, a disk that takes nothing more, ends the
run instead, as does a recipe that asks for what is not there: it goes on later.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lilliput.atomic import FULL, cannot_write
from lilliput.errors import CannotWrite, LilliputError, NotThere

if TYPE_CHECKING:
    from lilliput.context import Context

FAILED = "failed"
"""What a journal's result holds of work that failed: stage, number, candidate, kind, error."""

AGAIN = "failed before, not tried again (`lilliput resume RUN --retry-failed` does)"


def attempt(
    key: str,
    work: Callable[[], dict[str, Any]],
    context: Context,
    *,
    stage: str,
    candidate: str,
    number: int = 0,
) -> dict[str, Any] | None:
    """What `work` gives, done once a run; None if it fails, or failed in an earlier session.

    Args:
        key: The journal's, as for `once`.
        work: Works on one candidate.
        context: Journal and progress.
        stage: What was tried, for the report.
        candidate: Id of what it was tried on.
        number: The stage's place in the recipe, from 1; 0 where it has none.

    Raises:
        CannotWrite: The disk is full or broken.
        Exception: Whatever `work` raises, with LILLIPUT_DEBUG set.
    """

    def guarded() -> dict[str, Any]:
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # whatever a user's network provokes
            return {FAILED: failure(error, stage=stage, candidate=candidate, number=number)}

    before = context.journal.recall(key)
    done = before or context.journal.once(key, guarded)
    if FAILED not in done:
        return done
    why = AGAIN if before else "failed"
    context.progress.say(f"{stage} of {candidate}: {why}: {done[FAILED]['error']}")
    return None


def failure(error: Exception, *, stage: str, candidate: str, number: int = 0) -> dict[str, Any]:
    """The facts of a failure, for the journal.

    Raises:
        CannotWrite: The error says that the disk is full.
        NotThere: The recipe is to be mended, and nothing failed.
        Exception: The error itself, with LILLIPUT_DEBUG set.
    """
    if os.environ.get("LILLIPUT_DEBUG"):
        raise error
    _let_through(error)
    text = str(error) if isinstance(error, LilliputError) else f"{type(error).__name__}: {error}"
    return {
        "stage": stage,
        "number": number,
        "candidate": candidate,
        "kind": type(error).__name__,
        "error": text,
    }


def _let_through(error: Exception) -> None:
    """Raise what ends a run, wherever it lies in the chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (CannotWrite, NotThere)):
            raise cause
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise cannot_write(cause, cause.filename or "a temporary file") from error
        cause = cause.__cause__ or cause.__context__
