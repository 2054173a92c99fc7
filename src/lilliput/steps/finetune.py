"""Train a network further on the task's own loss, with the labels as the only teacher."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Truth
from lilliput.distill.sources import Examples
from lilliput.errors import Refused
from lilliput.steps.base import STAGES, Kind, Step


@STAGES.register("finetune")
class Finetune(Step):
    """Labels only. Where the original network is at hand, `distill` usually recovers more."""

    name: ClassVar[str] = "finetune"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = "plain supervised training; no paper"

    epochs: int = Field(10, ge=0, description="passes over the training split")
    learning_rate: float = Field(0.01, gt=0, description="peak; a tenth of a usual first training")
    optimizer: Literal["sgd", "adam"] = Field("sgd", description="Nesterov SGD, or AdamW")
    batch_size: int = Field(128, ge=1, description="examples a step")
    weight_decay: float = Field(5e-4, ge=0, description="not applied to biases and norms")

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
        source = Examples(context.data, context.task, network.preprocessing, self.batch_size)
        trained = train(
            network,
            [Truth(context.task)],
            source,
            schedule,
            context,
            key=f"{candidate.id}.finetune",
        )
        return Candidate(id=candidate.id, network=trained)
