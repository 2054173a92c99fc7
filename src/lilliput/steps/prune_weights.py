"""Set single weights to zero: the network keeps its shape, and packs into far fewer bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.loop import Schedule
from lilliput.distill.sources import examples_for
from lilliput.distill.sparsening import Choose, Sparsening
from lilliput.distill.teaching import Lesson, check_teachable, taught
from lilliput.errors import Refused
from lilliput.network import Network
from lilliput.prune.curvature import importance_of
from lilliput.prune.dead import without_dead
from lilliput.prune.from_context import repairer
from lilliput.prune.weights import (
    Plan,
    Score,
    by_glob,
    density_of,
    density_within,
    keep_masks,
    scores,
    weights_of,
)
from lilliput.search.pace import epochs_within
from lilliput.search.shrinking import with_best_gear
from lilliput.steps.base import STAGES, Kind, Step
from lilliput.steps.teaching import (
    BatchSize,
    ImitationShare,
    LearningRate,
    Optimizer,
    Temperature,
    WeightDecay,
)

ENOUGH_BITS = 2.0
"""A weight that may take so many needs no zeros: quantizing alone gets there, and loses little."""

BYTES_A_LAYER = 350
"""Of a packed int8 file, without its weights: scales, biases, the graph."""


@STAGES.register("prune_weights")
class PruneWeights(Step):
    """Zeros in unstructured places, or in a pattern. Smaller when packed; not faster.

    A stock runtime multiplies by zeros as by anything else: only units that died (`remove_dead`)
    save time. With `epochs` the sparsity rises during a training with a teacher. Later trainings
    keep the zeros.
    """

    name: ClassVar[str] = "prune_weights"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = (
        "Han et al., NIPS 2015, section 3; Zhu and Gupta, arXiv 1710.01878, section 3 (schedule); "
        "Guo et al., NIPS 2016, section 3.2 (regrowth)"
    )

    density: Annotated[float, Field(gt=0, le=1)] | Literal["size"] | None = Field(
        None,
        description="share of the weights that stay; size: what packs into the budget's size, "
        "only where quantizing alone would not",
    )
    densities: dict[str, float] = Field(
        default_factory=dict, description="shares of single layers, by globs; met one by one"
    )
    pattern: str | None = Field(
        None, pattern=r"^\d+:\d+$", description='"n:m" keeps n of any m input channels in a row'
    )
    scope: Literal["global", "layer"] = Field(
        "global", description="rank all weights together, or keep the same share of every layer"
    )
    score: Score = Field("magnitude", description="what makes a weight dear")
    floor: float = Field(0.2, ge=0, le=1, description="share that small layers keep at least")
    small: int = Field(5000, ge=0, description="layers of fewer weights are small")
    protect: tuple[str, ...] = Field((), description="globs of layers that keep all weights")
    regrow: bool = Field(False, description="weights that went may come back while it trains")
    settled: float = Field(
        0.75, gt=0, le=1, description="share of the training after which no weight goes any more"
    )
    remove_dead: bool = Field(True, description="cut units that no weight feeds or none reads")
    score_images: int = Field(256, ge=1, description="examples for the score fisher")
    bn_images: int = Field(512, ge=0, description="examples for batch-norm statistics")
    epochs: int = Field(0, ge=0, description="passes over the training split; 0 prunes at once")
    minutes: float | None = Field(
        None, gt=0, description="time for the training; fewer `epochs` where it is too short"
    )
    learning_rate: LearningRate = 0.02
    optimizer: Optimizer = "sgd"
    batch_size: BatchSize = 128
    weight_decay: WeightDecay = 5e-4
    temperature: Temperature = 4.0
    imitation: ImitationShare = 0.9

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if self.pattern is not None:
            if self.density is not None or self.densities:
                raise ValueError("prune_weights takes a `pattern` or densities, and not both")
            n, m = self._pattern
            if not 0 < n < m:
                raise ValueError(f'pattern "{self.pattern}": n must be from 1 to m - 1')
        elif self.density is None and not self.densities:
            raise ValueError("prune_weights needs `density`, `densities` or a `pattern`")
        wrong = [glob for glob, share in self.densities.items() if not 0 < share <= 1]
        if wrong:
            raise ValueError(f"densities: {wrong[0]!r} must be above 0 and at most 1")
        return self

    @property
    def _pattern(self) -> tuple[int, int]:
        n, _, m = (self.pattern or "0:0").partition(":")
        return int(n), int(m)

    def has_work(self, candidate: Candidate, context: Context) -> bool:
        """Where zeros are asked for by size, not in a network that is small enough."""
        limit = context.budget.max_bytes
        if self.density != "size" or limit is None or candidate.network is None:
            return True
        weights = weights_of(candidate.network, self.protect)
        return bits_within(limit, weights) < ENOUGH_BITS

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        if self.density == "size" and context.budget.max_bytes is None:
            raise Refused(
                "prune_weights: `density: size` keeps what the budget's size leaves room for, and "
                "none is set",
                hint="give `max_bytes` (--max-size), or a share, as `density: 0.2`",
            )
        names = weights_of(candidate.the_network(), self.protect)
        by_glob(names, self.densities, at="densities")
        if self.score == "fisher" or self.bn_images or self.epochs:
            context.data.split("train")
        if self.epochs:
            check_teachable(context)

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network = candidate.the_network()
        names = tuple(weights_of(network, self.protect))
        choose = self._choose(network, names, context)
        if self.epochs:
            network = self._gradually(
                network, names, choose, context, f"{candidate.id}.{self.name}"
            )
        else:
            network = masked(network, choose(_values(network, names), 1.0))
        # Shared values and grids keep their zeros, too; a training of ours has given them up.
        zeros, before = dict.fromkeys(names, "zeros"), network.held
        held = {**before, **zeros} if self.epochs else {**zeros, **before}
        network = replace(network, held=held)
        params = network.params
        if self.remove_dead:
            network = without_dead(network)
        network = repairer(context, self.bn_images)(network)
        left = _values(network, names)
        context.journal.note(
            "weights pruned",
            density=density_of(left),
            kept=sum(int(torch.count_nonzero(w)) for w in left.values()),
            layers={name: density_of({name: w}) for name, w in left.items()},
            params_of_dead_units=params - network.params,
        )
        return Candidate(id=candidate.id, network=network)

    def _choose(self, network: Network, names: tuple[str, ...], context: Context) -> Choose:
        """Masks by this step's score and budget, on the way from the density that there is."""
        values = _values(network, names)
        shares = by_glob(names, self.densities, at="densities")
        density = self.density
        if density == "size":
            assert context.budget.max_bytes is not None
            density = density_within(bits_within(context.budget.max_bytes, values))
        plan = Plan(
            density,
            shares,
            self.scope,
            self.floor,
            self.small,
            self._pattern if self.pattern else None,
        )
        rest = {n: w for n, w in values.items() if n not in shares}
        now = replace(
            plan,
            density=density_of(rest),
            shares={n: density_of({n: values[n]}) for n in shares},
        )
        fisher = self._fisher(network, names, context)

        def choose(weights: Mapping[str, Tensor], level: float) -> Mapping[str, Tensor]:
            return keep_masks(scores(self.score, weights, fisher), plan.between(now, level))

        return choose

    def _fisher(
        self, network: Network, names: tuple[str, ...], context: Context
    ) -> dict[str, Tensor] | None:
        if self.score != "fisher":
            return None
        return importance_of(network, context, names, self.score_images)

    def _gradually(
        self, network: Network, names: tuple[str, ...], choose: Choose, context: Context, key: str
    ) -> Network:
        """Masks are this training's to choose: what held these weights before would hinder it."""
        free = {n: form for n, form in network.held.items() if n not in names}
        epochs = self.epochs
        if self.minutes is not None:
            context = with_best_gear(network, self.batch_size, context)
            source = examples_for(network, context, self.batch_size)
            epochs = epochs_within(self.minutes, epochs, network, source, context, key=key)
        schedule = Schedule(
            epochs, self.learning_rate, self.optimizer, weight_decay=self.weight_decay
        )
        lesson = Lesson(schedule, self.batch_size, self.temperature, self.imitation)
        companion = Sparsening(names, choose, settled=self.settled, regrow=self.regrow)
        student = replace(network, held=free)
        trained = taught(student, context, lesson, key=key, companions=[companion])
        return replace(trained, held=network.held)


def bits_within(limit: float, weights: Mapping[str, Tensor]) -> float:
    """Bits that each of these weights may take, so that the packed file has at most `limit` bytes.

    At least a twentieth: less is never reached, and a network of nothing is none.
    """
    room = 8 * (limit - BYTES_A_LAYER * len(weights))
    return max(room / sum(w.numel() for w in weights.values()), 0.05)


def masked(network: Network, masks: Mapping[str, Tensor]) -> Network:
    """A copy of the network, zero wherever a mask is false."""
    network = network.copy()
    with torch.no_grad():
        for name, weight in _values(network, tuple(masks)).items():
            weight.masked_fill_(~masks[name], 0.0)
    return network


def _values(network: Network, names: tuple[str, ...]) -> dict[str, Tensor]:
    known = dict(network.module.named_parameters())
    return {name: known[name].detach() for name in names}
