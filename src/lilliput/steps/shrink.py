"""Find smaller versions of a network that pay on the target, and train the promising ones.

Cheap before dear: every architecture is timed on the target before anything is trained; what
another beats in both time and capacity is dropped; the rest gets a short distillation; finalists
are trained in full one by one, each chosen by what the last one taught.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from pydantic import Field

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.effort import Effort
from lilliput.search.finalists import Screened, left_after, next_finalist
from lilliput.search.rungs import judging
from lilliput.search.shrinking import (
    Considered,
    Training,
    considered_architectures,
    screened_drops,
    trained_in_full,
    with_best_gear,
)
from lilliput.steps.base import STAGES, Kind, Search

QUICK_MINUTES = 5.0
MOST_EPOCHS = 60
MOST_STEPS = 3000
"""A full training is never longer than either allows, whatever the time."""

ENOUGH_EPOCHS = 20
"""Where the time of several finalists lets none train as long as this, the first gets all of it:
after ten epochs no fast cut of ResNet-20 kept a limit of one point."""

SHARE_FOR_TRAINING = 0.7
"""Of the time, what ranking and screening are expected to leave."""

SHORTEST = 0.4
"""A further finalist gets at least this share of the time that those before it took."""


@STAGES.register("shrink")
class Shrink(Search):
    """The original itself goes on too: quantized, it is the candidate to beat.

    A finalist's validation loss must leave room for quantization, so finalists are held to
    `reserve` of the budget's `max_drop`.
    """

    name: ClassVar[str] = "shrink"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = "screening on cheap rungs first; no paper"
    first: ClassVar[bool] = True

    most_blocks: int | None = Field(
        None, ge=0, description="most blocks to leave out; all if unset"
    )
    widths: tuple[float, ...] = Field(
        (0.0, 0.25, 0.5), description="shares of channels to cut, each combined with the blocks"
    )
    protect: tuple[str, ...] = Field((), description="layers (globs) whose widths stay")
    architectures: int = Field(8, ge=1, description="most that get a short training")
    screen_steps: int = Field(60, ge=0, description="batches of the short training")
    finalists: int = Field(
        2, ge=1, description="how many are trained in full; with `minutes` more, while they last"
    )
    epochs: int | None = Field(None, ge=0, description="of a full training; unset: as time allows")
    minutes: float | None = Field(
        None, gt=0, description="time for it all: ranking, screening, trainings"
    )
    learning_rate: float = Field(0.03, gt=0, description="peak of the cosine")
    batch_size: int | None = Field(None, ge=1, description="examples a step; unset: 16 to 128")
    reserve: float = Field(0.9, gt=0, le=1, description="share of max_drop that training may lose")
    packed: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of an int8 file's bytes that a `pack` stage leaves, if one follows",
    )

    def requires(self, candidate: Candidate, context: Context) -> None:  # noqa: ARG002
        self.check_kind(candidate)

    def effort(self, context: Context) -> Effort:
        """Finalists in full and short trainings, as many as the time allows where it is bounded."""
        full = MOST_EPOCHS if self.epochs is None else self.epochs
        return Effort(
            epochs=(full, full * self.finalists),
            batches=(0, self.architectures * self.screen_steps),
            batch_size=self.batch_size or batch_size_for(len(context.data.train)),
            minutes=self.minutes or (QUICK_MINUTES if self.epochs is None else None),
            gives=(2, 1 + self.finalists),
        )

    def explore(self, candidate: Candidate, context: Context) -> Iterator[Candidate]:
        """The original, then each finalist as soon as it is trained."""
        yield candidate
        began = time.monotonic()
        size = self.batch_size or batch_size_for(len(context.data.train))
        training = Training(self.learning_rate, size, self.screen_steps)
        context = with_best_gear(candidate.the_network(), size, judging(context))
        considered = considered_architectures(
            candidate.the_network(),
            replace(context, budget=context.budget.before_packing(self.packed)),
            most_blocks=self.most_blocks,
            widths=self.widths,
            protect=self.protect,
            count=self.architectures,
        )
        screened = screened_drops(
            considered,
            training,
            self.architectures,
            context,
            hopeful=partial(self._hopeful, training=training, context=context),
        )
        minutes = self._minutes_left((time.monotonic() - began) / 60, context)
        yield from self._finalists(candidate, considered, screened, training, minutes, context)

    def _finalists(
        self,
        original: Candidate,
        considered: list[Considered],
        screened: list[Screened],
        training: Training,
        minutes: float,
        context: Context,
    ) -> Iterator[Candidate]:
        by_key = {c.architecture.key: c for c in considered}
        allowed = self._allowed(context)
        final: dict[str, float] = {}
        began = time.monotonic()
        while self.minutes is not None or len(final) < self.finalists:
            share = self._minutes_for_next(began, len(final), minutes, context)
            if allowed is not None and not final:
                epochs_of = self._epochs_of_first(screened, training, minutes, context)
            else:
                epochs_of = self._epochs_of(screened, training, share, context)
            chosen = next_finalist(expected(screened, epochs_of, training, context), final, allowed)
            if chosen is None or not share:
                return
            epochs = epochs_of[chosen.key]
            trained = trained_in_full(by_key[chosen.key], training, epochs, context)
            if trained is None:
                screened = [one for one in screened if one.key != chosen.key]
                continue
            final[chosen.key] = trained.value("proxy_drop")
            context.progress.say(
                f"{chosen.key}: {final[chosen.key]:.2f} {context.task.metric.unit} lost "
                f"on validation after {epochs} epochs"
            )
            yield self._as_child(trained, original, epochs)

    def _allowed(self, context: Context) -> float | None:
        """What a finalist may lose on validation."""
        allowed = context.budget.max_drop
        return None if allowed is None else allowed * self.reserve

    def _hopeful(self, one: Screened, training: Training, context: Context) -> bool:
        """Whether a screened architecture, trained in full, should keep the limit, if there is one.

        Said by the planned time: what a clock says differs in a run that is resumed.
        """
        allowed = self._allowed(context)
        if allowed is None:
            return True
        minutes = (self.minutes or QUICK_MINUTES) * SHARE_FOR_TRAINING
        epochs_of = self._epochs_of_first([one], training, minutes, context)
        (trained,) = expected([one], epochs_of, training, context)
        return trained.expected_drop <= allowed

    def _as_child(self, trained: Candidate, original: Candidate, epochs: int) -> Candidate:
        settings: dict[str, Any] = {
            self.name: {"architecture": trained.id, "epochs": epochs, **dict(trained.settings)}
        }
        return replace(
            trained,
            parent=original.id,
            stage=self.name,
            settings=settings,
            history=(*original.history, settings),
        )

    def _minutes_for_next(
        self, began: float, finished: int, minutes: float, context: Context
    ) -> float:
        """The next finalist's share of the time that is left; 0 if that is not worth a training.

        The answer is journalled: a run that is resumed decides as it had decided.
        """
        if self.minutes is None or not finished:
            return minutes / self.finalists

        def decide() -> dict[str, float]:
            spent = (time.monotonic() - began) / 60
            least = spent / finished * (SHORTEST if self.epochs is None else 0.9)
            left = minutes - spent
            if left < least:
                return {"minutes": 0.0}
            others = max(min(self.finalists - finished, int(left / least)), 1)
            return {"minutes": left / others}

        return float(context.journal.once(f"time for finalist {finished + 1}", decide)["minutes"])

    def _minutes_left(self, spent: float, context: Context) -> float:
        """What is left after ranking and screening, a third of the whole at least; journalled."""
        whole = self.minutes or QUICK_MINUTES
        left = {"minutes": max(whole - spent, whole / 3)}
        return float(context.journal.once("minutes to train", partial(dict, left))["minutes"])

    def _epochs_of_first(
        self, screened: list[Screened], training: Training, minutes: float, context: Context
    ) -> dict[str, int]:
        """Of the first finalist: its share of the time, or all where a share is too little."""
        shared = self._epochs_of(screened, training, minutes / self.finalists, context)
        if max([0, *shared.values()]) >= ENOUGH_EPOCHS:
            return shared
        return self._epochs_of(screened, training, minutes, context)

    def _epochs_of(
        self, screened: list[Screened], training: Training, minutes: float, context: Context
    ) -> dict[str, int]:
        """{key: as set, or as many as the time allows at the pace of its short training}."""
        steps = epoch_steps(training, context)
        most = max(MOST_EPOCHS, MOST_STEPS // steps)

        def epochs(one: Screened) -> int:
            if self.epochs is not None:
                return self.epochs
            assert one.pace is not None
            return min(max(one.pace.epochs_in(60 * minutes, steps), 1), most)

        return {one.key: epochs(one) for one in screened}


def expected(
    screened: list[Screened], epochs_of: dict[str, int], training: Training, context: Context
) -> list[Screened]:
    """With the share of the drop that trainings as long as these should leave."""
    times = epoch_steps(training, context) / max(training.screen_steps, 1)
    return [replace(one, left=left_after(epochs_of[one.key] * times)) for one in screened]


def epoch_steps(training: Training, context: Context) -> int:
    """Batches of an epoch, at least 1."""
    return max(context.task.epoch_steps(context.data.train, training.batch_size), 1)


def batch_size_for(examples: int) -> int:
    """A power of two that gives an epoch of a small data set some thirty steps: 16 to 128."""
    size = 16
    while size < 128 and examples // (2 * size) >= 30:
        size *= 2
    return size
