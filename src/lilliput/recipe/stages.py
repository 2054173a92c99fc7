"""The stages of a recipe: from plain values to checked objects, and whether they fit in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lilliput.errors import LilliputError, nearest
from lilliput.recipe.mistakes import Mistake, validated
from lilliput.steps.base import STAGES, Kind, Stage

_KINDS = {"network": "torch networks", "artifact": "exported files"}


def build_stages(plain: Any) -> tuple[dict[int, Stage], list[Mistake]]:
    """Stages of a recipe's list: `- name: {settings}`, or `- name` alone, or stage objects.

    Returns:
        {place in the list: stage} of those that are right, and what is wrong with the others.
    """
    if not isinstance(plain, Sequence) or isinstance(plain, str):
        return {}, [((), LilliputError("must be a list of stages", hint="- distill: {epochs: 10}"))]
    stages: dict[int, Stage] = {}
    mistakes: list[Mistake] = []
    for n, entry in enumerate(plain):
        stage, found = _build(entry)
        mistakes += [((n, *place), error) for place, error in found]
        if stage is not None:
            stages[n] = stage
    return stages, mistakes


def _build(entry: Any) -> tuple[Stage | None, list[Mistake]]:
    if isinstance(entry, Stage):
        return entry, []
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        shown = f"{len(entry)} names" if isinstance(entry, Mapping) else repr(entry)
        error = LilliputError(
            f"a stage is one name with its settings, not {shown}",
            hint="one entry a stage: `- distill: {epochs: 10}`",
        )
        return None, [((), error)]
    ((name, settings),) = entry.items()
    if name not in STAGES:
        return None, [
            ((name,), LilliputError("there is no such stage", hint=nearest(name, STAGES)))
        ]
    stage, found = validated(STAGES[name], {} if settings is None else settings)
    return stage, [((name, *place), error) for place, error in found]


def check_chain(stages: Mapping[int, Stage], start: Kind) -> list[Mistake]:
    """Whether each stage gets what it works on: networks before `export`, files after it.

    Args:
        stages: {place in the recipe's list: stage}.
        start: What the first one gets.
    """
    mistakes: list[Mistake] = []
    kind = start
    for n, stage in sorted(stages.items()):
        if stage.takes != kind:
            thing = f"works on {_KINDS[stage.takes]}, and gets {_KINDS[kind]} here"
            hint = _way_out(kind, start)
            mistakes.append(((n, stage.name), LilliputError(thing, hint=hint)))
        kind = stage.gives
    return mistakes


def _way_out(kind: Kind, start: Kind) -> str:
    if kind == "network":
        return "put an `export` stage before it"
    if start == "artifact":
        return "give the model as a torch network: `factory: file.py:function`"
    return "move it before `export`"
