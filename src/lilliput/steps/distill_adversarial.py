"""Train a network until a discriminator cannot tell its features from the teacher's."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.adversary import Condition, Deception, Discriminator, Ramp, Rival, Rules
from lilliput.distill.companions import Companion
from lilliput.distill.discrepancy import Discrepancy
from lilliput.distill.features import (
    Adapter,
    example_features,
    kept_inputs,
    last_features,
    pooled,
)
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import INPUT, LossTerm, scored_terms
from lilliput.distill.sources import examples_for
from lilliput.errors import Refused
from lilliput.network import Network, flat_outputs
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


@STAGES.register("distill_adversarial")
class DistillAdversarial(Step):
    """Distillation whose distance between features is learnt: a game against a discriminator.

    The loss is `(1 - imitation) · task loss + imitation · imitation loss + adversarial · student's
    loss in the game`; without labels the first term is left out. `imitation: 0` is the paper's
    labels and game alone. Costs the student's size and speed nothing.
    """

    name: ClassVar[str] = "distill_adversarial"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = (
        "Wang et al., Adversarial Learning of Portable Student Networks, AAAI 2018, abstract; "
        "Belagiannis et al., arXiv 1803.10750"
    )

    epochs: Epochs = 10
    learning_rate: LearningRate = 0.02
    optimizer: Optimizer = "sgd"
    batch_size: BatchSize = 128
    weight_decay: WeightDecay = 5e-4
    temperature: Temperature = 4.0
    imitation: ImitationShare = 0.9
    views: Views = 4
    adversarial: float = Field(0.1, ge=0, description="weight of the game in the student's loss")
    game: Literal["nonsaturating", "minimax", "lsgan", "hinge", "mmd"] = Field(
        "nonsaturating", description="losses of the game; mmd: a fixed distance, and no game"
    )
    condition: Condition = Field(
        "none", description="what the discriminator knows of a picture: its label, teacher's scores"
    )
    layer: str | None = Field(
        None, description="layer to compare (`.input`: what goes in); default: the last linear's"
    )
    teacher_layer: str | None = Field(None, description="the teacher's, if it is called otherwise")
    hidden: tuple[int, ...] = Field((256, 128), description="widths inside the discriminator")
    spectral: bool = Field(True, description="spectral norm 1 in each of its layers")
    dropout: float = Field(0.3, ge=0, lt=1, description="of the features that it sees")
    rival_rate: float = Field(5e-4, gt=0, description="its learning rate, of Adam")
    r1: float = Field(0.0, ge=0, description="penalty on its slope at the teacher's features")
    warmup: float = Field(0.15, ge=0, lt=1, description="share in which it alone learns")
    rise: float = Field(0.1, ge=0, le=1, description="share in which the game's weight rises")
    decay: float = Field(0.0, ge=0, le=1, description="share at the end in which it falls to 0")
    teacher: TeacherFile = None
    teacher_weights: TeacherWeights = None

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        require_teacher(self.name, self.teacher, self.teacher_weights, context)
        labelled = context.data.split("train").targets is not None
        if self.condition != "none" and (context.task.name != "classification"):
            raise Refused(
                f"distill_adversarial with condition: {self.condition} needs class scores, and the "
                f"task is {context.task.name}",
                hint="leave `condition` out",
            )
        if self.condition == "label" and not labelled:
            raise Refused(
                "distill_adversarial with condition: label needs labels, and the training examples "
                "have none",
                hint="use `condition: teacher`",
            )
        if self.condition != "none" and self.game == "mmd":
            raise Refused(
                f"game: mmd has no discriminator that condition: {self.condition} could inform",
                hint="leave `condition` out, or choose another `game`",
            )
        self.taps(candidate.the_network(), self.chosen_teacher(context))

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network, teacher = candidate.the_network(), self.chosen_teacher(context)
        source = examples_for(network, context, self.batch_size)
        terms, companions = self.parts(network, teacher, context, labelled=source.labelled)
        trained = train(
            network,
            terms,
            source,
            self.schedule(),
            context,
            key=f"{candidate.id}.distill",
            teacher=teacher,
            companions=companions,
        )
        return Candidate(id=candidate.id, network=trained)

    def chosen_teacher(self, context: Context) -> Network:
        """The original network, or the one that the settings name."""
        return the_teacher(self.teacher, self.teacher_weights, context)

    def schedule(self) -> Schedule:
        return Schedule(
            self.epochs,
            self.learning_rate,
            self.optimizer,
            weight_decay=self.weight_decay,
            views=self.views,
        )

    def parts(
        self, network: Network, teacher: Network, context: Context, *, labelled: bool
    ) -> tuple[list[LossTerm], list[Companion]]:
        """The loss terms that these settings ask for, and the discriminator where there is one."""
        terms = scored_terms(context.task, self.imitation, self.temperature, labelled=labelled)
        if not self.adversarial:
            return terms, []
        taps = self.taps(network, teacher)
        adapter = adapter_between(network, teacher, taps, seed=context.derived_seed("adapter"))
        if self.game == "mmd":
            return [*terms, Discrepancy(adapter, taps, weight=self.adversarial)], []
        rival = self.rival(teacher, taps, adapter, context)
        return [*terms, Deception(rival)], [rival]

    def rival(
        self, teacher: Network, taps: tuple[str, str], adapter: Adapter, context: Context
    ) -> Rival:
        """A new discriminator for features of the teacher's width."""
        discriminator = Discriminator(
            pooled(example_features(teacher, taps[1])).shape[1],
            0 if self.condition == "none" else classes_of(teacher),
            hidden=self.hidden,
            spectral=self.spectral,
            dropout=self.dropout,
            seed=context.derived_seed("discriminator"),
        )
        return Rival(
            discriminator,
            adapter,
            taps,
            Rules(self.game, self.condition, self.rival_rate, self.r1),
            Ramp(self.adversarial, self.warmup, self.rise, self.decay),
        )

    def taps(self, network: Network, teacher: Network) -> tuple[str, str]:
        """Where the student's and the teacher's features are."""
        ours = self.layer or last_features(network)
        theirs = self.teacher_layer or self.layer or last_features(teacher)
        example_features(network, ours), example_features(teacher, theirs)
        return ours, theirs


def classes_of(network: Network) -> int:
    """How many scores a classifier gives for each example."""
    with torch.no_grad():
        return flat_outputs(network.module(*network.example(2)))[0].shape[1]


def adapter_between(
    network: Network, teacher: Network, taps: tuple[str, str], *, seed: int
) -> Adapter:
    """The map from the student's features to the teacher's width.

    With a ReLU where none of the teacher's features is negative; as the identity on what is left
    where the student was cut out of a network like the teacher.
    """
    theirs = pooled(example_features(teacher, taps[1]))
    kept = kept_inputs(network.edits, taps[0].removesuffix(INPUT), theirs.shape[1])
    return Adapter(
        pooled(example_features(network, taps[0])).shape[1],
        theirs.shape[1],
        relu=bool((theirs >= 0).all()),
        kept=kept if taps[0].endswith(INPUT) else (),
        seed=seed,
    )
