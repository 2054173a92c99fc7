"""Go on with a run."""

from __future__ import annotations

from pathlib import Path

from lilliput.context import Progress, SilentProgress
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.result import RunResult


def resume(
    run: Path | str, *, retry_failed: bool = False, progress: Progress | None = None
) -> RunResult:
    """Go on with a run that was stopped; what it finished is not done again.

    A run that is finished gives its result at once. Given the same seed, a resumed run ends where
    an undisturbed one ends.

    Args:
        run: The run's folder.
        retry_failed: Try again what failed; else it stays a row of the report.
        progress: Watches.

    Raises:
        LilliputError: There is no run, another process works in it, its recipe was edited, or its
            journal was changed.
        CannotWrite: The disk is full or read-only.
    """
    recipe = Recipe.read(RunFolder.look(run).recipe)
    from lilliput.pipeline import execute

    with RunFolder.open(run) as folder:
        if retry_failed:
            folder.journal.forget_failures()
        return execute(recipe, folder, progress or SilentProgress())
