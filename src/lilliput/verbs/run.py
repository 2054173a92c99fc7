"""Run a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lilliput.context import Progress, SilentProgress
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.result import RunResult
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.opening import require_runtime
from lilliput.track import chosen, followed
from lilliput.verbs.check import checked


def run(
    recipe: Recipe | Path | str,
    *,
    out: Path | str | None = None,
    track: str | Sequence[str] | None = None,
    workers: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Run a recipe in a new folder.

    Args:
        recipe: A recipe, or the file that holds one.
        out: The run's folder, `runs/<model>-<date>-<time>` unless given.
        track: Where the run is shown while it goes on: "mlflow", "tensorboard", or both.
        workers: Who evaluates a search's candidates: a number of processes, "ray", or
            "ray://host:port"; as the recipe says unless given.
        progress: Watches.

    Returns:
        The run: its `front`, its `best` file, its `missed` limits.

    Raises:
        Mistakes: All that is wrong with the recipe, before anything is spent.
        LilliputError: The folder holds a run already, a tracker cannot be reached, or model and
            data are such that a stage or the budget cannot be met.
        Missing: A tracker's client is not installed.
    """
    watched, trackers = progress or SilentProgress(), chosen(track)
    loaded = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    if workers is not None:
        loaded = Recipe.model_validate({**dict(loaded), "workers": workers})
    from lilliput.pipeline import execute

    require_runtime(RUNTIMES[loaded.target.runtime])
    context, _, warnings = checked(loaded)
    with (
        RunFolder.create(out, loaded, model_name=loaded.model.name) as folder,
        followed(folder, trackers, watched),
    ):
        return execute(loaded, folder, watched, context=context, warnings=warnings)
