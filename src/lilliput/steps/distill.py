"""Train a network to answer as a teacher does: the original, or a larger one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.features import hinted_channels
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Hints, LossTerm, scored_terms
from lilliput.distill.sources import examples_for
from lilliput.network import Network
from lilliput.steps.base import STAGES, Kind, Step
from lilliput.steps.teaching import (
    BatchSize,
    Epochs,
    ImitationShare,
    LearningRate,
    Optimizer,
    TeacherFile,
    TeacherWeights,
    Temperature,
    Views,
    WeightDecay,
    require_teacher,
    the_teacher,
)


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

    epochs: Epochs = 10
    learning_rate: LearningRate = 0.02
    optimizer: Optimizer = "sgd"
    batch_size: BatchSize = 128
    weight_decay: WeightDecay = 5e-4
    temperature: Temperature = 4.0
    imitation: ImitationShare = 0.9
    views: Views = 4
    hints: tuple[str, ...] | dict[str, str] = Field(
        (), description="layers whose outputs should match too; or {layer: the teacher's layer}"
    )
    hint_weight: float = Field(1.0, ge=0, description="weight of the hints")
    teacher: TeacherFile = None
    teacher_weights: TeacherWeights = None

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        require_teacher(self.name, self.teacher, self.teacher_weights, context)
        context.data.split("train")

    @property
    def paired(self) -> dict[str, str]:
        """{tap of the student: tap of the teacher}."""
        return self.hints if isinstance(self.hints, dict) else {tap: tap for tap in self.hints}

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network = candidate.the_network()
        teacher = the_teacher(self.teacher, self.teacher_weights, context)
        source = examples_for(network, context, self.batch_size)
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

    def terms(
        self, network: Network, teacher: Network, context: Context, *, labelled: bool
    ) -> list[LossTerm]:
        """The loss terms that these settings ask for."""
        terms = scored_terms(context.task, self.imitation, self.temperature, labelled=labelled)
        if self.hints and self.hint_weight > 0:
            channels = {
                tap: hinted_channels(network, teacher, (tap, theirs))
                for tap, theirs in self.paired.items()
            }
            seed = context.derived_seed("hints")
            terms.append(Hints(channels, weight=self.hint_weight, called=self.paired, seed=seed))
        return terms
