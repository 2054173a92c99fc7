"""Train a network to answer as a teacher does: the original, or a larger one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Hints, Imitation, LossTerm, Taps, Truth
from lilliput.distill.sources import Examples
from lilliput.errors import Refused
from lilliput.network import Network
from lilliput.steps.base import STAGES, Kind, Step


@STAGES.register("distill")
class Distill(Step):
    """Soft targets from a teacher, plus the labels where there are any, plus feature hints.

    The loss is `(1 - imitation) · task loss + imitation · imitation loss + hint_weight · hints`;
    without labels the first term is left out.
    """

    name: ClassVar[str] = "distill"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = "Hinton et al., arXiv 1503.02531, section 2; Romero et al., ICLR 2015"

    epochs: int = Field(10, ge=0, description="passes over the training split")
    learning_rate: float = Field(0.02, gt=0, description="peak of the cosine")
    optimizer: Literal["sgd", "adam"] = Field("sgd", description="Nesterov SGD, or AdamW")
    batch_size: int = Field(128, ge=1, description="examples a step")
    weight_decay: float = Field(5e-4, ge=0, description="not applied to biases and norms")
    temperature: float = Field(4.0, gt=0, description="softens the teacher's class scores")
    imitation: float = Field(0.9, ge=0, le=1, description="share of the loss that is the teacher's")
    views: int = Field(
        4, ge=0, description="augmented epochs before they repeat, answers known; 0: never repeat"
    )
    hints: tuple[str, ...] = Field((), description="layers whose outputs should match too")
    hint_weight: float = Field(1.0, ge=0, description="weight of the hints")
    teacher: str | None = Field(None, description="another teacher, as file.py:function")
    teacher_weights: Path | None = Field(None, description="weights file of that teacher")

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        if self.teacher is None and context.original.network is None:
            raise Refused(
                "distill has no teacher: the original is a file, not a torch network",
                hint="name one: `teacher: file.py:function` with `teacher_weights`",
            )
        context.data.split("train")

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network, teacher = candidate.the_network(), self.the_teacher(context)
        source = Examples(context.data, context.task, network.preprocessing, self.batch_size)
        schedule = Schedule(
            self.epochs,
            self.learning_rate,
            self.optimizer,
            weight_decay=self.weight_decay,
            views=self.views,
        )
        trained = train(
            network,
            self.terms(network, teacher, context, labelled=source.labelled),
            source,
            schedule,
            context,
            key=f"{candidate.id}.distill",
            teacher=teacher,
        )
        return Candidate(id=candidate.id, network=trained)

    def the_teacher(self, context: Context) -> Network:
        """The original network, or the one that the settings name."""
        if self.teacher is None:
            return context.original.the_network()
        from lilliput.models.source import load_network

        inputs = context.original.network.inputs if context.original.network is not None else None
        return load_network(
            self.teacher, weights=self.teacher_weights, inputs=inputs, data=context.data
        )

    def terms(
        self, network: Network, teacher: Network, context: Context, *, labelled: bool
    ) -> list[LossTerm]:
        """The loss terms that these settings ask for."""
        terms: list[LossTerm] = []
        if labelled and self.imitation < 1:
            terms.append(Truth(context.task, weight=1 - self.imitation))
        weight = self.imitation if labelled else 1.0
        if weight > 0:
            terms.append(Imitation(context.task, weight, self.temperature))
        if self.hints and self.hint_weight > 0:
            channels = {
                tap: (ours, theirs)
                for tap, ours, theirs in zip(
                    self.hints,
                    feature_channels(network, self.hints),
                    feature_channels(teacher, self.hints),
                    strict=True,
                )
            }
            seed = context.derived_seed("hints")
            terms.append(Hints(channels, weight=self.hint_weight, seed=seed))
        return terms


def feature_channels(network: Network, taps: tuple[str, ...]) -> list[int]:
    """Number of channels (dimension 1) of each named layer's output."""
    with torch.no_grad(), Taps(network.module, taps) as tapped:
        network.module(*network.example(2))
    return [tapped.features[tap].shape[1] for tap in taps]
