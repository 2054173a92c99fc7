"""What the steps with a teacher have in common: settings, and the teacher itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lilliput.context import Context
from lilliput.errors import Refused
from lilliput.network import Network

Epochs = Annotated[int, Field(ge=0, description="passes over the training split")]
LearningRate = Annotated[float, Field(gt=0, description="peak of the cosine")]
Optimizer = Annotated[Literal["sgd", "adam"], Field(description="Nesterov SGD, or AdamW")]
BatchSize = Annotated[int, Field(ge=1, description="examples a step")]
WeightDecay = Annotated[float, Field(ge=0, description="not applied to biases and norms")]
Temperature = Annotated[float, Field(gt=0, description="softens the teacher's class scores")]
ImitationShare = Annotated[
    float, Field(ge=0, le=1, description="share of the loss that is the teacher's")
]
Views = Annotated[
    int,
    Field(ge=0, description="augmented epochs before they repeat, answers known; 0: never repeat"),
]
TeacherFile = Annotated[str | None, Field(description="another teacher, as file.py:function")]
TeacherWeights = Annotated[Path | None, Field(description="weights file of that teacher")]


def require_teacher(step: str, teacher: str | None, weights: Path | None, context: Context) -> None:
    """Open the teacher that the settings name.

    Raises:
        Refused: There is no network to learn from.
        LilliputError: The one that is named cannot be opened, or answers in another form.
    """
    if teacher is None and context.teacher is None:
        raise Refused(
            f"{step} has no teacher: the original is a file, not a torch network",
            hint="name one: `teacher: file.py:function` with `teacher_weights`",
        )
    if teacher is not None:
        the_teacher(teacher, weights, context)


def the_teacher(teacher: str | None, weights: Path | None, context: Context) -> Network:
    """The run's teacher, or the one that the settings name."""
    if teacher is None:
        return context.the_teacher()
    from lilliput.models.source import load_network
    from lilliput.teacher import load_teacher

    original, path = context.original.network, None if weights is None else str(weights)
    if original is None:
        return load_network(teacher, weights=path, data=context.data)
    return load_teacher(teacher, path, original, context.task, context.data)
