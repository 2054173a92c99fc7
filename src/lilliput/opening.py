"""What a recipe names, opened: examples, the model, another teacher, and the context they make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.dataset import Dataset
from lilliput.data.sources import load_data
from lilliput.input_check import check_network_inputs, warnings_of
from lilliput.models.decisions import decision_warning
from lilliput.models.source import load_model
from lilliput.network import Network
from lilliput.recipe import Recipe
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.opening import check_target
from lilliput.tasks import task_of
from lilliput.tasks.base import Task
from lilliput.teacher import load_teacher

LONGEST_TIMING, SHORTEST_TIMING = 20.0, 2.0
"""Seconds of a session of the stopwatch."""


def opened(recipe: Recipe) -> Context:
    """The recipe's model, examples and teacher, opened, where nothing is kept.

    The target need not be here: a plan may be made elsewhere.

    Raises:
        LilliputError: There is no such target, or model or data cannot be used.
    """
    check_target(RUNTIMES[recipe.target.runtime], recipe.target)
    task = task_of(recipe.task.model_dump())
    data = load_examples(recipe, task)
    original = load_original(recipe, task, data)
    return Context(
        data=data,
        task=task,
        target=recipe.target,
        original=original,
        folder=Path(),
        other_teacher=_other_teacher(recipe, original, task, data),
        budget=recipe.budget,
        seed=recipe.seed,
        device=recipe.device,
        train_threads=recipe.train_threads,
        train_precision=recipe.train_precision,
        workers=recipe.workers,
        timing_seconds=timing_seconds(recipe.time_budget_minutes),
    )


def timing_seconds(minutes: float | None) -> float:
    """The longest session of the stopwatch in a run that may take so long: a tenth of it."""
    if minutes is None:
        return LONGEST_TIMING
    return min(max(6.0 * minutes, SHORTEST_TIMING), LONGEST_TIMING)


def input_warnings(context: Context) -> tuple[str, ...]:
    """What is suspicious about what the network and another teacher are given, and about `forward`.

    Only the original becomes a file: how a teacher computes is its own affair.
    """
    original = context.original.network
    warnings = () if original is None else tuple(filter(None, [decision_warning(original)]))
    asked = {"": context.original.network, "the teacher: ": context.other_teacher}
    for whose, network in asked.items():
        if network is not None:
            found = warnings_of(check_network_inputs(network, context.data, context.task))
            warnings += tuple(whose + sentence for sentence in found)
    return warnings


def load_examples(recipe: Recipe, task: Task) -> Dataset:
    """The recipe's data, prepared for its task."""
    loaded = load_data(
        recipe.data.source,
        task=task,
        seed=recipe.seed,
        preprocessing=recipe.preprocessing,
        **recipe.data.settings(),
    )
    if recipe.data.augment is not None:
        loaded = replace(loaded, augment=recipe.data.augment)
    return task.prepare(loaded)


def load_original(recipe: Recipe, task: Task, data: Dataset) -> Candidate:
    """The user's model as the first candidate: a torch network, or an ONNX file."""
    loaded = load_model(
        recipe.model.reference,
        weights=recipe.model.weights,
        inputs=_input_spec(recipe.model.input_shape),
        preprocessing=recipe.preprocessing,
        task=task,
        data=data,
    )
    if isinstance(loaded, Network):
        return Candidate(id="original", network=loaded)
    return Candidate(id="original", artifact=loaded)


def _other_teacher(
    recipe: Recipe, original: Candidate, task: Task, data: Dataset
) -> Network | None:
    """The network that the recipe names to teach in the original's place."""
    if recipe.teacher is None:
        return None
    section, taught = recipe.teacher, original.the_network()
    return load_teacher(section.reference, section.weights, taught, task, data)


def _input_spec(shape: tuple[int, ...] | None) -> tuple[TensorSpec, ...] | None:
    """One input of the shape that the recipe gives, batch first and free."""
    if shape is None:
        return None
    return (TensorSpec(name="", shape=(None, *shape[1:]), sample=shape),)


def describe(data: Dataset) -> dict[str, Any]:
    """Name, numbers of examples and provenance, for the report's conditions."""
    sizes = {
        name: len(getattr(data, name)) for name in ("train", "calibration", "validation", "test")
    }
    return {"name": data.name, "examples": sizes, "synthetic": data.synthetic, **data.facts}


def without_truth(data: Dataset) -> str:
    """What stands in for the truth that examples come without, in a sentence; "" if all have it."""
    splits = {name: getattr(data, name) for name in ("validation", "test")}
    bare = [name for name, split in splits.items() if len(split) and split.targets is None]
    if not bare:
        return ""
    return (
        f"the {' and '.join(bare)} examples have no labels: the original's own answers stand in "
        "for them, and quality is agreement with the original"
    )
