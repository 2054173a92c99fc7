"""The main verb: goals in, a run folder with the measured front of files out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lilliput.budget import Budget
from lilliput.context import Progress, SilentProgress
from lilliput.planning import Plan, make_plan
from lilliput.preprocessing import Preprocessing
from lilliput.recipe import DataSpec, ModelSpec, Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.result import RunResult
from lilliput.steps.base import STAGES, Stage
from lilliput.target import Target


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
    seed: int = 0,
    time_budget_minutes: float | None = None,
    epochs: int | None = None,
    out: Path | str | None = None,
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
        input_shape: Without the batch; unset, taken from the data.
        seed: Fixes everything that is not a clock.
        time_budget_minutes: Time for the whole; more of it finds better files.
        epochs: Of a full training; unset, as many as the time allows.
        out: The run's folder; it must not hold another run.
        progress: Watches.

    Returns:
        The run: its `front`, its `best` file, `missed` limits.
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
        seed=seed,
        time_budget_minutes=time_budget_minutes,
        epochs=epochs,
    )
    from lilliput.pipeline import execute

    name = Path(model.rpartition(":")[0] or model).stem
    with RunFolder.create(out, recipe, model_name=name) as run:
        return execute(recipe, run, progress or SilentProgress())
