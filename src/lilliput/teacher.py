"""Another network that teaches in the original's place: opened, and asked whether it can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lilliput.context import Context
from lilliput.data.dataset import Dataset
from lilliput.errors import LilliputError
from lilliput.meter.accuracy import metric_of
from lilliput.models.session import scores_in_torch
from lilliput.models.source import load_network
from lilliput.network import Network, flat_outputs
from lilliput.tasks.base import Task

EXAMPLES = 1000
"""Validation examples that original and teacher are compared on."""


def load_teacher(
    spec: str, weights: str | None, original: Network, task: Task, data: Dataset
) -> Network:
    """The network under the original's name for its inputs: both see the same examples.

    Args:
        spec: `file.py:function`, `package.module:function`, or a `.pt2` of `torch.export`.
        weights: As of any network.
        original: Whose inputs and preprocessing the teacher gets.
        task: What both are for.
        data: Examples.

    Raises:
        LilliputError: It does not run on these inputs, or answers in another shape.
    """
    teacher = load_network(
        spec,
        weights=weights,
        inputs=original.inputs,
        preprocessing=original.preprocessing,
        task=task,
        data=data,
    )
    ours, theirs = _shapes(original, original), _shapes(teacher, original)
    if ours != theirs:
        raise LilliputError(
            f"the teacher {spec!r} gives {_told(theirs)} where the network gives {_told(ours)}",
            hint="a teacher was trained for the same task, and answers in the same form",
        )
    return replace(teacher, inputs=original.inputs, preprocessing=original.preprocessing)


def introduced(context: Context) -> str:
    """A sentence on how good the other teacher is beside the original; "" without one.

    Where validation examples have no truth, nothing can be said of either.
    """
    teacher, split = context.other_teacher, context.data.validation.sample(EXAMPLES)
    if teacher is None or not len(split) or split.targets is None:
        return ""

    def work() -> dict[str, Any]:
        metric = context.task.metric
        values = {
            name: metric_of(scores_in_torch(network, split, context), metric).value
            for name, network in (
                ("teacher", teacher),
                ("original", context.original.the_network()),
            )
        }
        return {
            **values,
            "better": metric.higher_is_better == (values["teacher"] > values["original"]),
        }

    found = context.journal.once("teacher", work)
    unit = context.task.metric.unit
    sentence = (
        f"the teacher {teacher.name} scores {found['teacher']:.2f} {unit} on {len(split)} "
        f"validation examples, the original {found['original']:.2f} {unit}"
    )
    return sentence if found["better"] else f"warning: {sentence}: it has little to teach"


def _shapes(network: Network, original: Network) -> list[tuple[int, ...]]:
    with torch.no_grad():
        return [
            tuple(out.shape) for out in flat_outputs(network.module.eval()(*original.example(2)))
        ]


def _told(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(shape) for shape in shapes)
