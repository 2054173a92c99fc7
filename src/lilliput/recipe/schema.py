"""The JSON schema of a recipe: what an editor completes and underlines with."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from lilliput.data.sources.named import NAMED
from lilliput.recipe.document import Recipe
from lilliput.runtimes.base import RUNTIMES
from lilliput.steps.arms import Arms
from lilliput.steps.base import STAGES, Step
from lilliput.tasks.base import TASKS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """The schema of what `Recipe.parse` takes, with every registered stage, task and runtime.

    The short forms (`data: digits`, `- export`) are in it, so that an editor underlines nothing
    that would run. What needs the machine or the files to be judged is left to `check`.
    """
    schema = Recipe.model_json_schema()
    properties, defs = schema["properties"], schema["$defs"]
    defs.pop("Stage")
    properties["stages"] |= {"items": {"anyOf": [*_stages(defs), _arms(defs)]}}
    _also(properties["model"], {"type": "string"})
    _also(properties["data"], *_named(NAMED))
    _also(properties["task"], {"enum": [*TASKS]})
    _also(properties["target"], *_named(RUNTIMES))
    defs["TaskSection"]["properties"]["name"] |= {"enum": [*TASKS]}
    defs["Target"]["properties"]["runtime"] |= {"enum": [*RUNTIMES]}
    return {"$schema": DIALECT, **schema}


def _stages(defs: dict[str, Any]) -> list[dict[str, Any]]:
    """What an entry of `stages` may be; the settings of each stage go into `defs`."""
    choices: list[dict[str, Any]] = []
    for name in STAGES:
        settings = STAGES[name].model_json_schema()
        defs |= settings.pop("$defs", {})
        defs[f"stage.{name}"] = settings
        choices.append(_named_entry(name))
    return [*choices, {"enum": [*STAGES]}]


def _arms(defs: dict[str, Any]) -> dict[str, Any]:
    """Lists of steps by name, in place of a stage."""
    steps = [name for name in STAGES if issubclass(STAGES[name], Step)]
    defs["step"] = {"anyOf": [*(_named_entry(name) for name in steps), {"enum": steps}]}
    lists = {"type": "array", "items": {"$ref": "#/$defs/step"}}
    given = {"type": "object", "minProperties": 2, "additionalProperties": lists}
    return {
        "type": "object",
        "description": inspect.getdoc(Arms),
        "properties": {Arms.name: given},
        "required": [Arms.name],
        "additionalProperties": False,
    }


def _named_entry(name: str) -> dict[str, Any]:
    """A stage's name with its settings, which are among the definitions."""
    return {
        "type": "object",
        "description": inspect.getdoc(STAGES[name]) or "",
        "properties": {name: {"anyOf": [{"$ref": f"#/$defs/stage.{name}"}, {"type": "null"}]}},
        "required": [name],
        "additionalProperties": False,
    }


def _named(names: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """A text: the names are offered, others are taken."""
    return {"enum": sorted(names)}, {"type": "string"}


def _also(field: dict[str, Any], *others: dict[str, Any]) -> None:
    """Let a field that is a section be something else, too."""
    section = {"$ref": field.pop("$ref")} if "$ref" in field else {"anyOf": field.pop("anyOf")}
    field["anyOf"] = [section, *others]
