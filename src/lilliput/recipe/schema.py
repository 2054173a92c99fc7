"""The JSON schema of a recipe: what an editor completes and underlines with."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from lilliput.data.sources.named import NAMED
from lilliput.recipe.document import Recipe
from lilliput.recipe.paths import MODELS
from lilliput.runtimes.base import RUNTIMES
from lilliput.steps.arms import Arms
from lilliput.steps.base import STAGES, Stage, Step
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
    properties["stages"] |= {"items": {"anyOf": [*_stages(defs), _arms()]}}
    for section in MODELS:
        _also(properties[section], {"type": "string"})
    _also(properties["data"], *_named(NAMED))
    _also(properties["task"], {"enum": [*TASKS]})
    _also(properties["target"], *_named(RUNTIMES))
    defs["TaskSection"]["properties"]["name"] |= {"enum": [*TASKS]}
    defs["Target"]["properties"]["runtime"] |= {"enum": [*RUNTIMES]}
    return {"$schema": DIALECT, **schema}


def _stages(defs: dict[str, Any]) -> list[dict[str, Any]]:
    """What an entry of `stages` may be; the settings of each stage go into `defs`."""
    steps: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for name in STAGES:
        settings = STAGES[name].model_json_schema()
        defs |= settings.pop("$defs", {})
        defs[f"stage.{name}"] = settings
        given = {"anyOf": [{"$ref": f"#/$defs/stage.{name}"}, {"type": "null"}]}
        choices = steps if issubclass(STAGES[name], Step) else others
        choices += [_entry(STAGES[name], given), {"const": name}]
    defs["step"] = {"anyOf": steps}
    return [{"$ref": "#/$defs/step"}, *others]


def _arms() -> dict[str, Any]:
    """Lists of steps by name, in place of a stage."""
    lists = {"type": "array", "items": {"$ref": "#/$defs/step"}}
    return _entry(Arms, {"type": "object", "minProperties": 2, "additionalProperties": lists})


def _entry(kind: type[Stage], given: dict[str, Any]) -> dict[str, Any]:
    """The name of what stands in the list, with what it is given."""
    return {
        "type": "object",
        "description": inspect.getdoc(kind) or "",
        "properties": {kind.name: given},
        "required": [kind.name],
        "additionalProperties": False,
    }


def _named(names: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """A text: the names are offered, others are taken."""
    return {"enum": sorted(names)}, {"type": "string"}


def _also(field: dict[str, Any], *others: dict[str, Any]) -> None:
    """Let a field that is a section be something else, too."""
    section = {"$ref": field.pop("$ref")} if "$ref" in field else {"anyOf": field.pop("anyOf")}
    field["anyOf"] = [section, *others]
