"""One lesson for every step that trains what it has changed: the original is the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lilliput.context import Context
from lilliput.distill.companions import Companion
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import scored_terms
from lilliput.distill.sources import examples_for
from lilliput.errors import Refused
from lilliput.network import Network


@dataclass(frozen=True)
class Lesson:
    """A schedule, the examples of a step, and the teacher's share of the loss.

    `temperature` softens the teacher's class scores; `imitation` is 0 (labels alone) to 1.
    """

    schedule: Schedule
    batch_size: int = 128
    temperature: float = 4.0
    imitation: float = 0.9


def taught(
    network: Network,
    context: Context,
    lesson: Lesson,
    *,
    key: str,
    companions: Sequence[Companion] = (),
) -> Network:
    """A trained copy of the network. Without a teacher the labels do, without labels the teacher.

    Args:
        network: Left as it is.
        context: Training examples, and the teacher.
        lesson: How long, and from whom.
        key: Names the training; see `train`.
        companions: See `train`.

    Raises:
        Refused: There is nothing to learn from.
    """
    check_teachable(context)
    source = examples_for(network, context, lesson.batch_size)
    teacher = context.teacher if lesson.imitation > 0 or not source.labelled else None
    terms = scored_terms(
        context.task,
        lesson.imitation if teacher is not None else 0.0,
        lesson.temperature,
        labelled=source.labelled,
    )
    return train(
        network,
        terms,
        source,
        lesson.schedule,
        context,
        key=key,
        teacher=teacher,
        companions=companions,
    )


def check_teachable(context: Context) -> None:
    """Raise `Refused` where neither labels nor a network could teach."""
    if context.data.split("train").targets is None and context.teacher is None:
        raise Refused(
            "there is nothing to learn from: the training examples have no labels, and the "
            "original is a file, not a torch network",
            hint="add labels, or set `epochs: 0`",
        )
