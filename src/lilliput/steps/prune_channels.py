"""Cut whole channels: the network gets narrower, its inputs and outputs stay."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.errors import Refused
from lilliput.network import Network
from lilliput.prune.channels import Goal
from lilliput.prune.cost import network_macs
from lilliput.prune.from_context import shrink
from lilliput.prune.importance import NEEDS_DATA, NEEDS_LABELS, Criterion
from lilliput.prune.protect import matching_modules
from lilliput.steps.base import STAGES, Kind, Step

GOALS = ("ratio", "keep_macs", "max_macs", "max_params", "max_latency_ms")


@STAGES.register("prune_channels")
class PruneChannels(Step):
    """Coupled channels go together; every cut is proven equal to the same channels zeroed.

    Exactly one goal: `ratio`, `keep_macs`, `max_macs`, `max_params` or `max_latency_ms`. The
    widths that meet it are solved for in closed form (measured, for milliseconds) and rounded to
    what the target runs well. No training: follow with `distill` or `finetune`.
    """

    name: ClassVar[str] = "prune_channels"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = (
        "Fang et al., CVPR 2023, section 3 (groups); criteria: see lilliput.prune.importance"
    )

    ratio: float | None = Field(None, gt=0, lt=1, description="share of the channels that go")
    keep_macs: float | None = Field(None, gt=0, lt=1, description="share of multiply-adds left")
    max_macs: float | None = Field(None, gt=0, description="multiply-adds left, at most")
    max_params: float | None = Field(None, gt=0, description="parameters left, at most")
    max_latency_ms: float | None = Field(None, gt=0, description="float latency on the target")
    criterion: Criterion = Field("output", description="what makes a channel dear")
    scope: Literal["global", "local"] = Field(
        "global", description="rank all channels together, or take the same share of every group"
    )
    normalise: Literal["mean", "macs", "none"] = Field(
        "macs", description="divide scores by multiply-adds saved, by the group's mean, or not"
    )
    protect: tuple[str, ...] = Field(
        (), description="globs of layers whose inputs and outputs keep their widths"
    )
    rounds: int = Field(1, ge=1, le=100, description="number of small cuts")
    multiple_of: int | Literal["auto"] = Field(
        "auto", description="width grid; auto measures the target once"
    )
    min_width: int = Field(1, ge=1, description="channels that every group keeps")
    score_images: int = Field(256, ge=1, description="examples for output, taylor and fisher")
    bn_images: int = Field(512, ge=0, description="examples for batch-norm statistics")

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        given = [goal for goal in GOALS if getattr(self, goal) is not None]
        if len(given) != 1:
            said = f"{' and '.join(given)} are both given" if given else "none is given"
            raise ValueError(f"prune_channels needs exactly one of {', '.join(GOALS)}: {said}")
        if isinstance(self.multiple_of, int) and self.multiple_of < 1:
            raise ValueError("multiple_of is a positive number or auto")
        return self

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        matching_modules(candidate.the_network(), self.protect)
        if self.criterion in NEEDS_DATA or self.bn_images:
            context.data.split("train")
        if self.criterion in NEEDS_LABELS and context.data.train.targets is None:
            raise Refused(
                f"the criterion {self.criterion!r} needs labels, and the training examples have "
                "none",
                hint="use `criterion: output`, which needs none",
            )

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        return Candidate(id=candidate.id, network=self.shrink(candidate.the_network(), context))

    def shrink(self, network: Network, context: Context) -> Network:
        """The narrower network, its batch-norm statistics taken anew."""
        return shrink(
            network,
            context,
            self._goal(network),
            criterion=self.criterion,
            scope=self.scope,
            normalise=self.normalise,
            protect=self.protect,
            rounds=self.rounds,
            multiple_of=self.multiple_of,
            min_width=self.min_width,
            score_images=self.score_images,
            bn_images=self.bn_images,
            measure_ms=None if self.max_latency_ms is None else _stopwatch(context),
        )

    def _goal(self, network: Network) -> Goal:
        max_macs = self.max_macs
        if self.keep_macs is not None:
            max_macs = self.keep_macs * network_macs(network)
        return Goal(self.ratio, max_macs, self.max_params, self.max_latency_ms)


def _stopwatch(context: Context) -> Callable[[Network], float]:
    """Latency on the target of a network's float file, free of the machine's slow drifts.

    Each is timed beside the original, and the ratio is applied to the original's usual time.
    """
    from lilliput.search.probe import probe

    original = context.original.the_network()
    usual: list[float] = []

    def milliseconds(network: Network) -> float:
        prices = probe({"trial": network, "whole": original}, original, context)
        usual.append(prices["whole"].float_ms)
        return prices["trial"].float_ms / usual[-1] * statistics.median(usual)

    return milliseconds
