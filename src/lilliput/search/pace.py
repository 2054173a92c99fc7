"""How many epochs fit into a time, judged by a short training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lilliput.context import Context, Precision
from lilliput.distill.answers import affordable
from lilliput.distill.loop import Schedule
from lilliput.distill.sources import Source
from lilliput.distill.speed import Gear, computed_in, pass_seconds, torch_threads
from lilliput.network import Network, flat_outputs


@dataclass(frozen=True)
class Pace:
    """Seconds a step of a training, and how many of them are a teacher's answer.

    `teacher` is 0 where its answers are too large to be kept: then every step is as slow.
    """

    step: float
    teacher: float = 0.0

    def epochs_in(self, seconds: float, steps: int, views: int = Schedule.views) -> int:
        """Whole epochs of `steps` that fit; only the first `views` of them ask the teacher."""
        each = seconds / max(steps, 1)
        asking = each / max(self.step, 1e-4)
        if not 0 < views < asking or not 0 < self.teacher < self.step:
            return int(asking)
        return int((each - views * self.teacher) / (self.step - self.teacher))

    def as_json(self) -> dict[str, Any]:
        return {"seconds_a_step": self.step, "teacher_seconds": self.teacher}


def teacher_seconds(
    teacher: Network, inputs: tuple[Tensor, ...], steps: int, precision: Precision
) -> float:
    """Seconds of one of its answers in the precision of the training; 0 if they cannot be kept."""
    seconds = 0.0
    with torch.no_grad(), computed_in(precision):
        for _ in range(2):
            began = time.perf_counter()
            answer = flat_outputs(teacher.module(*inputs))[0]
            seconds = time.perf_counter() - began
    fits = affordable(answer, batches=steps, views=Schedule.views)
    return seconds if fits else 0.0


def epochs_within(
    minutes: float, most: int, network: Network, source: Source, context: Context, *, key: str
) -> int:
    """As many epochs with the teacher as the time allows: 1 to `most`.

    Judged by one step, which is journalled under `key`: a resumed run decides as it had decided.
    """
    teacher, steps = context.teacher, source.steps()

    def work() -> dict[str, Any]:
        inputs, _ = next(iter(source.epoch(context.rng("pace"))))
        step = pass_seconds(network, inputs, Gear(context.train_threads, context.train_precision))
        if teacher is None:
            return Pace(step).as_json()
        with torch_threads(context.train_threads):
            asking = teacher_seconds(teacher, inputs, steps, context.train_precision)
        return Pace(step + asking, asking).as_json()

    found = context.journal.once(f"pace of {key}", work)
    pace = Pace(found["seconds_a_step"], found["teacher_seconds"])
    return min(max(pace.epochs_in(60 * minutes, steps), 1), most)
