"""The main verb: goals in, a run folder with the measured front of files out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lilliput.budget import Budget
from lilliput.context import Progress
from lilliput.errors import LilliputError, Refused
from lilliput.meter.host import native_precision, usable_cores
from lilliput.planning import Form, stages_for
from lilliput.preprocessing import Preprocessing
from lilliput.recipe import Recipe
from lilliput.recipe.document import NOT_TAUGHT
from lilliput.recipe.paths import model_section
from lilliput.runs.result import RunResult
from lilliput.target import Target
from lilliput.verbs.run import run

QUICK_MINUTES = 10.0
"""Time for the whole where the user sets none."""


def compress(
    model: str,
    *,
    weights: Path | str | None = None,
    data: str = "digits",
    task: str | dict[str, Any] = "classification",
    target: str | Target = "onnxruntime",
    budget: Budget | None = None,
    preprocessing: Preprocessing | None = None,
    input_shape: tuple[int, ...] | None = None,
    teacher: str | None = None,
    teacher_weights: Path | str | None = None,
    seed: int = 0,
    time_budget_minutes: float | None = None,
    epochs: int | None = None,
    out: Path | str | None = None,
    track: str | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Bring a trained network under a budget, in measured files.

    Args:
        model: `file.py:function`, `package.module:function`, a `.pt2` or an `.onnx` file.
        weights: `.safetensors`, or a state dict in `.pt`.
        data: A folder, an `.npz`, `file.py:function`, or a named set.
        task: Name of a task, or its settings with a "name".
        target: Where the files will run: a runtime's name, or a whole Target.
        budget: The limits; without any, the front spreads over speeds.
        preprocessing: How a picture becomes the network's input.
        input_shape: Batch first, as (1, 3, 32, 32); unset, taken from the data.
        teacher: A larger network of the same task that teaches in the model's place, named as
            `model`; it gets the same inputs.
        teacher_weights: Its weights.
        seed: Fixes everything that is not a clock.
        time_budget_minutes: Time for the whole; more of it finds better files.
        epochs: Of a full training; unset, as many as the time allows.
        out: The run's folder; it must not hold another run.
        track: Where the run is shown while it goes on: "mlflow", "tensorboard", or both.
        progress: Watches.

    Returns:
        The run: its `front`, its `best` file, `missed` limits.

    Raises:
        LilliputError: Something given is wrong, or a tracker cannot be reached.
        Missing: A tracker's client is not installed.
    """
    recipe = recipe_for(
        model,
        weights=weights,
        data=data,
        task=task,
        target=target,
        budget=budget,
        preprocessing=preprocessing,
        input_shape=input_shape,
        teacher=teacher,
        teacher_weights=teacher_weights,
        seed=seed,
        time_budget_minutes=time_budget_minutes,
        epochs=epochs,
    )
    if time_budget_minutes is None and epochs is None and progress is not None:
        progress.say("no --time-budget: a quick pass; more time finds better files")
    return run(recipe, out=out, track=track, progress=progress)


def recipe_for(
    model: str,
    *,
    weights: Path | str | None,
    data: str,
    task: str | dict[str, Any],
    target: str | Target,
    budget: Budget | None,
    preprocessing: Preprocessing | None,
    input_shape: tuple[int, ...] | None,
    seed: int,
    time_budget_minutes: float | None,
    epochs: int | None,
    teacher: str | None = None,
    teacher_weights: Path | str | None = None,
) -> Recipe:
    """The recipe that these goals come to; it is what the run writes down, to be edited."""
    forms: dict[str, Form] = {".onnx": "file", ".pt2": "program"}
    form = forms.get(Path(model).suffix, "network")
    if teacher is None and teacher_weights is not None:
        raise LilliputError("weights of a teacher, and no teacher", hint="name it with `teacher`")
    if teacher is not None and ".onnx" in (Path(model).suffix, Path(teacher).suffix):
        raise Refused(NOT_TAUGHT, hint="give the function that builds it, and its weights")
    stages = stages_for(
        budget=budget or Budget(),
        time_budget_minutes=time_budget_minutes or QUICK_MINUTES,
        epochs=epochs,
        form=form,
    )
    plain = {
        "model": {**_section(model, weights), "input_shape": input_shape},
        "teacher": None if teacher is None else _section(teacher, teacher_weights),
        "data": {"source": data},
        "task": task,
        "preprocessing": preprocessing,
        "target": target,
        "budget": budget or Budget(),
        "seed": seed,
        "time_budget_minutes": time_budget_minutes,
        "train_threads": usable_cores(),
        "train_precision": native_precision(),
        "stages": stages,
    }
    return Recipe.model_validate(plain)


def _section(model: str, weights: Path | str | None) -> dict[str, Any]:
    return {**model_section(model), "weights": None if weights is None else str(weights)}
