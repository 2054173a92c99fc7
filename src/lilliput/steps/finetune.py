"""Train a network further on the task's own loss, with the labels as the only teacher."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Truth
from lilliput.distill.sources import examples_for
from lilliput.errors import Refused
from lilliput.steps.base import STAGES, Kind, Step
from lilliput.steps.teaching import BatchSize, Epochs, Optimizer, WeightDecay


@STAGES.register("finetune")
class Finetune(Step):
    """Labels only. Where the original network is at hand, `distill` usually recovers more."""

    name: ClassVar[str] = "finetune"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = "plain supervised training; no paper"

    epochs: Epochs = 10
    learning_rate: float = Field(0.01, gt=0, description="peak; a tenth of a usual first training")
    optimizer: Optimizer = "sgd"
    batch_size: BatchSize = 128
    weight_decay: WeightDecay = 5e-4

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        if context.data.split("train").targets is None:
            raise Refused(
                "finetune needs labels, and the training examples have none",
                hint="use `distill`, which learns from the original network alone",
            )

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network = candidate.the_network()
        schedule = Schedule(
            self.epochs, self.learning_rate, self.optimizer, weight_decay=self.weight_decay
        )
        source = examples_for(network, context, self.batch_size)
        trained = train(
            network,
            [Truth(context.task)],
            source,
            schedule,
            context,
            key=f"{candidate.id}.finetune",
        )
        return Candidate(id=candidate.id, network=trained)
