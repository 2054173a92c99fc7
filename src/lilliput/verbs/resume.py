"""Go on with a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lilliput.context import Progress, SilentProgress
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.result import RunResult
from lilliput.track import chosen, followed


def resume(
    run: Path | str,
    *,
    retry_failed: bool = False,
    track: str | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Go on with a run that was stopped; what it finished is not done again.

    A run that is finished gives its result at once. Given the same seed, a resumed run ends where
    an undisturbed one ends.

    Args:
        run: The run's folder.
        retry_failed: Try again what failed; else it stays a row of the report.
        track: Where the run is shown while it goes on: "mlflow", "tensorboard", or both. What a
            tracker was told in earlier sessions is gone on from; the rest is sent first.
        progress: Watches.

    Raises:
        LilliputError: There is no run, another process works in it, its recipe was edited, or its
            journal was changed.
        CannotWrite: The disk is full or read-only.
    """
    watched, trackers = progress or SilentProgress(), chosen(track)
    recipe = Recipe.read(RunFolder.look(run).recipe)
    from lilliput.pipeline import execute

    with RunFolder.open(run) as folder, followed(folder, trackers, watched):
        if retry_failed:
            folder.journal.forget_failures()
        return execute(recipe, folder, watched)
