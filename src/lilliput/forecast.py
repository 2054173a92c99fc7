"""How long each stage of a run and the whole will take, from the pace of a few real batches.

The pace is the original's. A network that was cut is faster and a teacher makes a training slower,
so that what is said is a range.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lilliput.context import Context
from lilliput.distill.speed import seconds_an_answer, seconds_an_example
from lilliput.effort import Clock, Effort, Span
from lilliput.errors import LilliputError
from lilliput.prune import network_macs
from lilliput.steps.arms import Arms
from lilliput.steps.base import Stage, Step
from lilliput.units import format_seconds

ANSWER = 0.4
"""Of a training step of a network, its answer as a teacher, casts and copies included."""

CUT = 0.5
"""Of the original's pace: what a network that was cut may take."""

UNKNOWN = 1e9
"""Seconds by the example, where the network cannot be run for it: the training will say why."""

SAID_AS_ONE = 1.5
"""A range whose end is within so many times its beginning is said as one number."""


@dataclass(frozen=True)
class Forecast:
    """Seconds of each stage, by its number from 1, and of measuring the files at the end."""

    stages: tuple[Span, ...]
    files: Span

    @property
    def whole(self) -> Span:
        return self.left(1)

    def left(self, number: int) -> Span:
        """From the beginning of this stage to the end of the run."""
        return added([*self.stages[number - 1 :], self.files])

    def as_json(self) -> dict[str, Any]:
        return {"stages": self.stages, "files": self.files}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Forecast:
        return cls(tuple((a, b) for a, b in plain["stages"]), tuple(plain["files"]))


def foreseen(stages: Sequence[Stage], context: Context) -> Forecast:
    """The forecast of a run; takes about two seconds, and less where the network is small."""
    clock = _clock(context)
    spans, (_, files) = _in_turn(stages, (1.0, 1.0), clock, context)
    scored = 2 * len(context.data.validation) + len(context.data.test)
    seconds = 0.3 * context.timing_seconds, 2.0 * context.timing_seconds
    measuring = (
        seconds[0] + scored * clock.answering[0],
        seconds[1] + scored * (1 + files) * clock.answering[1],
    )
    return Forecast(tuple(spans), measuring)


def added(spans: Iterable[Span]) -> Span:
    """The least and the most of all."""
    listed = list(spans)
    return sum(low for low, _ in listed), sum(high for _, high in listed)


def told(span: Span) -> str:
    """`"about 40 s"`, or `"1 min 20 s to 3 min"`; `"not known"` without a pace."""
    if span[1] >= UNKNOWN:
        return "not known"
    low, high = (_round(seconds) for seconds in span)
    if high <= SAID_AS_ONE * low or high < 2:
        return f"about {format_seconds(max(high, 1))}"
    return f"{format_seconds(low)} to {format_seconds(high)}"


def _round(seconds: float) -> float:
    """To what a forecast is worth: whole minutes above ten, tens of seconds above one."""
    step = 60 if seconds >= 600 else 10 if seconds >= 60 else 1
    return round(seconds / step) * step


def _clock(context: Context) -> Clock:
    """Of the original; files alone are thought to be answered in a thousandth of a second."""
    network, training, answering = context.original.network, (0.0, 0.0), (1e-4, 1e-3)
    if network is None:
        return Clock(training, answering)
    with suppress(LilliputError):
        answering = seconds_an_answer(network, context)
    if not network.fixed and len(context.data.train):
        training = (0.0, UNKNOWN)
        # A network may fail in training mode alone, which is no reason not to export it.
        with suppress(Exception):
            fast, slow = seconds_an_example(network, context)
            asked = network_macs(context.the_teacher()) / network_macs(network)
            training = CUT * fast, (1 + ANSWER * asked) * slow
    # A runtime answers faster than torch does, by up to four times.
    return Clock(training, (answering[0] / 4, answering[1]))


def _in_turn(
    stages: Sequence[Stage], count: Span, clock: Clock, context: Context
) -> tuple[list[Span], Span]:
    """A span for each stage, those of arms one by one, and how many candidates come out."""
    spans: list[Span] = []
    for stage in stages:
        if isinstance(stage, Arms):
            ends = []
            for steps in stage.branches.values():
                inner, end = _in_turn(steps, count, clock, context)
                spans += inner
                ends.append(end)
            count = added(ends)
            continue
        if _idle(stage, context):
            spans.append((0.0, 0.0))
            continue
        effort = stage.effort(context)
        low, high = clock.seconds(effort, _epoch(effort, context))
        spans.append((count[0] * low, count[1] * high))
        count = count[0] * effort.gives[0], count[1] * effort.gives[1]
    return spans, count


def _idle(stage: Stage, context: Context) -> bool:
    """Whether the stage finds nothing to do with the original."""
    if not isinstance(stage, Step) or stage.takes != "network":
        return False
    return not stage.has_work(context.original, context)


def _epoch(effort: Effort, context: Context) -> int:
    """Batches of an epoch."""
    train = context.data.train
    return max(context.task.epoch_steps(train, effort.batch_size), 1) if len(train) else 0
