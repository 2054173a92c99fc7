"""Check a recipe before anything is spent."""

from __future__ import annotations

from pathlib import Path

from lilliput.errors import LilliputError
from lilliput.planning import Plan
from lilliput.recipe import Recipe
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.opening import require_runtime
from lilliput.verbs.compress import check_goals


def check(recipe: Recipe | Path | str) -> Plan:
    """Read a recipe, open its model and data, and say what running it would do.

    Nothing is trained, exported or written.

    Args:
        recipe: A recipe, or the file that holds one.

    Raises:
        Mistakes: All that is wrong with the recipe's text, each with its line.
        LilliputError: The model or the data cannot be used, or no cut can reach the budget.
        Missing: The target's runtime is not installed here.
    """
    loaded = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    if not loaded.stages:
        raise LilliputError("the recipe has no stages", hint="e.g. `- export` and `- quantize`")

    require_runtime(RUNTIMES[loaded.target.runtime])
    return check_goals(loaded)
