"""Check a recipe before anything is spent."""

from __future__ import annotations

from pathlib import Path

from lilliput.context import Context
from lilliput.errors import LilliputError, Mistakes
from lilliput.planning import Bounds, Plan
from lilliput.recipe import Recipe
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.opening import require_runtime


def check(recipe: Recipe | Path | str) -> Plan:
    """Read a recipe, open its model and data, and say what running it would do.

    Nothing is trained, and nothing is left: the original is exported into a temporary folder.

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


def check_goals(recipe: Recipe) -> Plan:
    """The plan of a recipe, before anything is spent.

    What is suspicious about the network's inputs is among the plan's warnings.

    Raises:
        Refused: No cut can reach the budget, a stage cannot take this model or data, or the
            inputs are such that nothing can work.
        Mistakes: Several of these.
    """
    from lilliput.forecast import foreseen

    context, bounds, warnings = checked(recipe)
    return Plan(
        name=recipe.model.name,
        bounds=bounds,
        data=context.data,
        target=recipe.target,
        budget=recipe.budget,
        stages=tuple(stage.described() for stage in recipe.stages),
        minutes=recipe.time_budget_minutes,
        forecast=foreseen(recipe.stages, context),
        warnings=warnings,
    )


def checked(recipe: Recipe) -> tuple[Context, Bounds, tuple[str, ...]]:
    """What the recipe names, opened, its bounds and warnings; raises as `check_goals` does."""
    from lilliput.opening import input_warnings, opened
    from lilliput.planning import bounds_of, unreachable
    from lilliput.requirements import refusals

    context = opened(recipe)
    mistakes = refusals(recipe.stages, context)
    warnings = input_warnings(context)
    timed_on = None if recipe.budget.max_latency_ms is None else recipe.target
    bounds = bounds_of(context.original, timed_on)
    mistakes += unreachable(bounds, recipe.budget)
    if mistakes:
        raise mistakes[0] if len(mistakes) == 1 else Mistakes(mistakes)
    return context, bounds, warnings
