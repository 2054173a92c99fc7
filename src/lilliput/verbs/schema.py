"""What a recipe may hold, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lilliput.atomic import write_atomically
from lilliput.recipe.schema import recipe_schema


def schema(*, out: Path | str | None = None) -> dict[str, Any]:
    """The JSON schema of recipes: every section, stage and setting, with types and bounds.

    Stages, tasks and runtimes of installed plug-ins are in it.

    Args:
        out: A file to write it to, replaced if it is there; editors want one.
    """
    found = recipe_schema()
    if out is not None:
        write_atomically(Path(out), (json.dumps(found, indent=1) + "\n").encode())
    return found
