"""What pydantic found wrong, said as a person would: the value, the rule, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from lilliput.errors import LilliputError, nearest
from lilliput.recipe.marked import Marked, Place
from lilliput.units import parse_bytes, parse_count, parse_duration_ms, parse_minutes

M = TypeVar("M", bound=BaseModel)
Mistake = tuple[Place, LilliputError]

_RULES = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must look like {pattern}",
    "int_from_float": "must be a whole number",
    "none_required": "must be left out",
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of names to values",
    "mapping": "a mapping of names to values",
    "model": "a section of `key: value` lines",
    "path": "a path",
}
_WITH_UNITS = {
    "_ms": (parse_duration_ms, "milliseconds"),
    "_bytes": (parse_bytes, "bytes"),
    "_minutes": (parse_minutes, "minutes"),
    "_macs": (parse_count, "a plain number"),
    "_params": (parse_count, "a plain number"),
}


def validated(model: type[M], plain: Any) -> tuple[M | None, list[Mistake]]:
    """An object of the model, or everything that is wrong with its values, by place."""
    try:
        return model.model_validate(plain), []
    except ValidationError as error:
        return None, mistakes_in(error, model)
    except LilliputError as error:
        return None, [((), error)]


def mistakes_in(error: ValidationError, model: type[BaseModel] = BaseModel) -> list[Mistake]:
    """What pydantic found, by place and in our words; names of other fields are the model's."""
    return [_mistake(model, dict(e)) for e in error.errors(include_url=False)]


def located(mistake: Mistake, marked: Marked, at: str) -> LilliputError:
    """The error with the file, the line and the field in front of it."""
    place, error = mistake
    field = field_of(place)
    where = f"{at}:{marked.line(place)}" + (f": {field}" if field else "")
    return LilliputError(error.thing, at=where, hint=error.hint)


def field_of(place: Place) -> str:
    """`("stages", 0, "prune_channels")` → `stages[0].prune_channels`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")


def _mistake(model: type[BaseModel], error: dict[str, Any]) -> Mistake:
    place: Place = tuple(error["loc"])
    kind, context = error["type"], error.get("ctx", {})
    name = str(place[-1]) if place else ""
    if kind == "extra_forbidden":
        known = _fields_around(model, place)
        return place, LilliputError("there is no such key", hint=nearest(name, known))
    if kind == "missing":
        return place, LilliputError("is missing", hint=_description(model, place))
    if kind in ("value_error", "assertion_error"):
        return place, LilliputError(re.sub(r"^(Value|Assertion) error, ", "", error["msg"]))
    value = _shown(error["input"])
    if kind in _RULES:
        return place, LilliputError(f"{value} {_rule(kind, context)}", hint=_choice(error, context))
    wanted = _KINDS.get(kind.rpartition("_")[0])
    thing = f"{value} must be {wanted}" if wanted else f"{value}: {error['msg']}"
    return place, LilliputError(thing, hint=_without_unit(name, error["input"]))


def _rule(kind: str, context: Mapping[str, Any]) -> str:
    numbers = {k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()}
    return _RULES[kind].format(**numbers)


def _choice(error: Mapping[str, Any], context: Mapping[str, Any]) -> str | None:
    """For a misspelt choice: the nearest one."""
    choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
    return nearest(str(error["input"]), choices) if choices else None


def _without_unit(name: str, value: Any) -> str | None:
    """`max_latency_ms: 3ms` → the number to write, since the unit is in the field's name."""
    for suffix, (parse, unit) in _WITH_UNITS.items():
        if name.endswith(suffix) and isinstance(value, str):
            try:
                return f"the field is in {unit}: {name}: {parse(value):.10g}"
            except LilliputError:
                return f"the field is in {unit}"
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fields_around(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that are known where `place` is."""
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        inner = _model_in(field.annotation) if field is not None else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _description(model: type[BaseModel], place: Place) -> str | None:
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        inner = _model_in(field.annotation) if field is not None else None
        if inner is None:
            return None
        model = inner
    field = model.model_fields.get(str(place[-1]))
    return field.description if field is not None else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model` or `Model | None`."""
    for choice in (annotation, *get_args(annotation)):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None
