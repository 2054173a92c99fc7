"""Go on with a run."""

from __future__ import annotations

from pathlib import Path

from lilliput.context import Progress, SilentProgress
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.result import RunResult


def resume(run: Path | str, *, progress: Progress | None = None) -> RunResult:
    """Go on with a run that was stopped; what it finished is not done again.

    A run that is finished gives its result at once. Given the same seed, a resumed run ends where
    an undisturbed one ends.

    Args:
        run: The run's folder.
        progress: Watches.

    Raises:
        LilliputError: There is no run, another process works in it, its recipe was edited, or its
            journal was changed.
    """
    recipe = Recipe.read(RunFolder.look(run).recipe)
    from lilliput.pipeline import execute

    with RunFolder.open(run) as folder:
        return execute(recipe, folder, progress or SilentProgress())
