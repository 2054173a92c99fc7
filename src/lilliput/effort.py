"""How much work a stage is, in examples: what can be said of it before it begins."""

from __future__ import annotations

from typing import NamedTuple

Span = tuple[float, float]
"""The least and the most that something may be."""


class Effort(NamedTuple):
    """What a stage does with one candidate.

    `epochs` and `batches` are trained on, in batches of `batch_size`; `answers` are examples that
    a network or file is asked about. Where `minutes` are set, the stage ends about then. `seconds`
    is what it takes besides. `gives` is the number of candidates that come of one.
    """

    epochs: Span = (0.0, 0.0)
    batches: Span = (0.0, 0.0)
    batch_size: int = 128
    answers: Span = (0.0, 0.0)
    minutes: float | None = None
    seconds: Span = (0.0, 0.0)
    gives: Span = (1.0, 1.0)


class Clock(NamedTuple):
    """Seconds an example takes on this machine: to be trained on, and to be answered."""

    training: Span
    answering: Span

    def seconds(self, effort: Effort, epoch: int) -> Span:
        """How long the effort takes with one candidate.

        Args:
            effort: Of the stage.
            epoch: Batches of an epoch.
        """
        low, high = (
            (effort.epochs[n] * epoch + effort.batches[n]) * effort.batch_size * self.training[n]
            + effort.answers[n] * self.answering[n]
            for n in (0, 1)
        )
        if effort.minutes is not None:
            low, high = min(low, 60 * effort.minutes), min(high, 60 * effort.minutes)
        return low + effort.seconds[0], high + effort.seconds[1]
