"""Tasks: what "good" means for a network. One file a task; importing one registers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lilliput.errors import LilliputError, nearest
from lilliput.tasks.base import TASKS, Task

__all__ = ["TASKS", "Task", "task_of"]


def task_of(settings: Mapping[str, Any] | str) -> Task:
    """The task of this name, or of these settings with a "name".

    Raises:
        LilliputError: An unknown task or setting, with the nearest name; a value out of bounds.
    """
    named = {"name": settings} if isinstance(settings, str) else dict(settings)
    if "name" not in named:
        raise LilliputError("the task has no name", hint=f"known: {', '.join(TASKS)}")
    kind: Any = TASKS[str(named["name"])]
    unknown = [key for key in named if key not in kind.model_fields]
    if unknown:
        raise LilliputError(
            f"the task {named['name']!r} has no setting {unknown[0]!r}",
            hint=nearest(unknown[0], [key for key in kind.model_fields if key != "name"]),
        )
    try:
        task: Task = kind.model_validate(named)
    except ValidationError as error:
        first = error.errors()[0]
        raise LilliputError(
            f"the setting {'.'.join(map(str, first['loc']))!r} of the task {named['name']!r}: "
            f"{first['msg']}"
        ) from error
    return task
