"""A recipe as YAML that explains itself: each field with its description behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lilliput.steps.base import Stage

HEADER = """\
# A lilliput recipe. Edit it and run it again:
#     lilliput check recipe.yaml    # all mistakes at once, nothing is run
#     lilliput run recipe.yaml
# Units are in the names. Relative paths begin at this file's folder.
"""
COMMENT_COLUMN = 40


def recipe_text(recipe: BaseModel, stages: Sequence[Stage]) -> str:
    """The recipe and its stages as commented YAML, every setting written out."""
    lines = [HEADER.rstrip("\n")]
    for name, field in type(recipe).model_fields.items():
        if name == "stages":
            continue
        value = getattr(recipe, name)
        if isinstance(value, BaseModel):
            lines += ["", _commented(f"{name}:", field.description), *_fields(value, "  ")]
        else:
            lines.append(_commented(f"{name}: {_flow(value)}", field.description))
    lines += ["", "stages:" if stages else "stages: []"]
    for stage in stages:
        settings = list(_fields(stage, "      "))
        lines += [f"  - {stage.name}:" if settings else f"  - {stage.name}: {{}}", *settings]
    return "\n".join(lines) + "\n"


def _fields(model: BaseModel, indent: str) -> Iterator[str]:
    plain = model.model_dump(mode="json")
    known: dict[str, FieldInfo] = type(model).model_fields
    for name, value in plain.items():
        about = known[name].description if name in known else None
        yield _commented(f"{indent}{name}: {_flow(value)}", about)


def _flow(value: Any) -> str:
    """A value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("...").rstrip("\n")


def _commented(line: str, description: str | None) -> str:
    if not description:
        return line
    return f"{line:<{COMMENT_COLUMN}} # {' '.join(description.split())}"
