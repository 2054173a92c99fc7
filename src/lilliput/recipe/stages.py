"""The stages of a recipe: from plain values to checked objects, and whether they fit in a row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lilliput.errors import LilliputError, nearest
from lilliput.recipe.marked import Place
from lilliput.recipe.mistakes import Mistake, validated
from lilliput.steps.arms import Arms
from lilliput.steps.base import STAGES, Kind, Stage, Step

_KINDS = {"network": "torch networks", "artifact": "exported files"}
_ARM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_OUTSIDE = "put searches and selections before or behind the arms"


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
    if name == Arms.name:
        arms, found = _arms(settings)
        return arms, [((name, *place), error) for place, error in found]
    if name not in STAGES:
        hint = nearest(name, [*STAGES, Arms.name])
        return None, [((name,), LilliputError("there is no such stage", hint=hint))]
    stage, found = validated(STAGES[name], {} if settings is None else settings)
    return stage, [((name, *place), error) for place, error in found]


def _arms(plain: Any) -> tuple[Arms | None, list[Mistake]]:
    """Lists of steps by the names of their arms."""
    if not isinstance(plain, Mapping) or len(plain) < 2:
        hint = "arms: {labels: [finetune], teacher: [distill]}"
        return None, [
            ((), LilliputError("needs two arms or more, each a list of steps", hint=hint))
        ]
    branches: dict[str, tuple[Step, ...]] = {}
    mistakes: list[Mistake] = []
    for arm, entries in plain.items():
        if not _ARM.fullmatch(str(arm)):
            hint = "letters, digits, - and _: it becomes a part of file names"
            mistakes.append(((arm,), LilliputError("cannot name an arm", hint=hint)))
        stages, found = build_stages(entries)
        mistakes += [((arm, *place), error) for place, error in found]
        for n, stage in stages.items():
            if not isinstance(stage, Step):
                error = LilliputError("is no step, and arms are made of steps", hint=_OUTSIDE)
                mistakes.append(((arm, n, stage.name), error))
        steps = (stage for _, stage in sorted(stages.items()) if isinstance(stage, Step))
        branches[str(arm)] = tuple(steps)
    return Arms(branches=branches), mistakes


def check_chain(stages: Mapping[int, Stage], start: Kind) -> list[Mistake]:
    """Whether each stage gets what it works on, networks before `export` and files after it.

    And whether files come out: nothing else is measured or delivered.

    Args:
        stages: {place in the recipe's list: stage}.
        start: What the first one gets.
    """
    mistakes, end = _chain(stages, start, start)
    if end == "network" and stages and not mistakes:
        last = max(stages)
        thing = "is the last stage and leaves a network, and only files are measured and delivered"
        error = LilliputError(thing, hint="put `- export` behind it")
        mistakes.append(((last, stages[last].name), error))
    return mistakes


def _chain(stages: Mapping[int, Stage], kind: Kind, start: Kind) -> tuple[list[Mistake], Kind]:
    """What does not fit in a row that begins with `kind`, and what the row ends with."""
    mistakes: list[Mistake] = []
    for n, stage in sorted(stages.items()):
        if isinstance(stage, Arms):
            ends: set[Kind] = set()
            for arm, steps in stage.branches.items():
                found, end = _chain(dict(enumerate(steps)), kind, start)
                mistakes += [((n, stage.name, arm, *place), error) for place, error in found]
                ends.add(end)
            if len(ends) > 1:
                thing = "some arms end with networks and others with files"
                hint = "put `export` into all of them, or behind the arms"
                mistakes.append(((n, stage.name), LilliputError(thing, hint=hint)))
            kind = "artifact" if "artifact" in ends else "network"
            continue
        if stage.takes != kind:
            thing = f"works on {_KINDS[stage.takes]}, and gets {_KINDS[kind]} here"
            hint = _way_out(kind, start)
            mistakes.append(((n, stage.name), LilliputError(thing, hint=hint)))
        if stage.first and n > min(stages):
            thing = "works on the original alone, and gets what earlier stages made of it"
            hint = "put it in front; what is to be done to all its networks comes after it"
            mistakes.append(((n, stage.name), LilliputError(thing, hint=hint)))
        kind = stage.gives
    return mistakes, kind


def _way_out(kind: Kind, start: Kind) -> str:
    if kind == "network":
        return "put an `export` stage before it"
    if start == "artifact":
        return "give the model as a torch network: `factory: file.py:function`"
    return "move it before `export`"


def check_fixed(stages: Mapping[int, Stage]) -> list[Mistake]:
    """The stages that train or cut, none of which an exported program allows."""
    thing = "changes a network, and an exported program is a fixed graph"
    hint = "give the model as code: `factory: file.py:function`, and its `weights`"
    return [
        (place, LilliputError(thing, hint=hint))
        for place, stage in one_by_one(stages)
        if (stage.takes, stage.gives) == ("network", "network")
    ]


def one_by_one(stages: Mapping[int, Stage]) -> Iterator[tuple[Place, Stage]]:
    """Every stage with its place in the recipe's list, those of arms too."""
    for n, stage in sorted(stages.items()):
        if not isinstance(stage, Arms):
            yield (n, stage.name), stage
            continue
        for arm, steps in stage.branches.items():
            for place, step in one_by_one(dict(enumerate(steps))):
                yield (n, stage.name, arm, *place), step
