"""Leave out whole residual blocks or layers whose removal keeps every shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.dataset import Split
from lilliput.errors import LilliputError, Refused, nearest
from lilliput.network import Network, flat_outputs
from lilliput.prune.blocks import Block, ranked, removable_blocks, remove
from lilliput.prune.from_context import BATCH, repairer
from lilliput.prune.trace import evaluating
from lilliput.steps.base import STAGES, Kind, Step

FINALISTS = 4
"""Blocks whose loss is taken again after another one went; the first time it is all of them."""


@STAGES.register("prune_blocks")
class PruneBlocks(Step):
    """On small networks this is the cut that pays in full, in float and in int8.

    Either `remove` names the blocks, or `count` of them are chosen: those that save the most
    time on the target for each bit of loss, batch-norm statistics taken anew before each trial.
    No training: follow with `distill` or `finetune`.
    """

    name: ClassVar[str] = "prune_blocks"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = "measured here: on small networks narrower layers save less than blocks"

    remove: tuple[str, ...] = Field((), description="paths of blocks to leave out")
    count: int | None = Field(None, ge=1, description="number of blocks to choose and leave out")
    candidates_images: int = Field(512, ge=1, description="examples that rank the blocks")
    bn_images: int = Field(512, ge=0, description="examples for batch-norm statistics")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.remove) == (self.count is not None):
            raise ValueError("prune_blocks needs `remove` or `count`, and not both")
        return self

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        blocks = removable_blocks(candidate.the_network())
        for path in self.remove:
            if path not in blocks:
                raise Refused(f"{path!r} is no block that can go", hint=nearest(path, blocks))
        if self.count is not None:
            context.data.split("validation")
        if self.count is not None and self.count > len(blocks):
            raise Refused(
                f"{self.count} blocks cannot go: {candidate.the_network().name!r} has "
                f"{len(blocks)} whose removal keeps all shapes",
                hint=f"they are {', '.join(blocks)}" if blocks else "use prune_channels",
            )

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network = candidate.the_network()
        repair = repairer(context, self.bn_images)
        paths = self.remove or self._chosen(network, context)
        for path in paths:
            network = remove(network, path)
        context.journal.note("blocks removed", paths=list(paths))
        return Candidate(id=candidate.id, network=repair(network))

    def _chosen(self, network: Network, context: Context) -> tuple[str, ...]:
        """Greedily the block that is best to remove, given those that are gone."""
        blocks = removable_blocks(network)
        saved = saved_by(network, blocks, context)
        repair = repairer(context, self.bn_images)
        split = _judging(context).sample(self.candidates_images)
        whole = mean_loss(network, split, context)
        gone: tuple[str, ...] = ()
        left = list(blocks)
        while len(gone) < (self.count or 0):
            trials = {path: remove(network, path) for path in left}
            losses = {p: mean_loss(repair(n), split, context) for p, n in trials.items()}
            order = ranked({path: saved[path] for path in trials}, losses, whole)
            best = order[0]
            context.journal.note("block ranked", gone=list(gone), best=best, losses=losses)
            network, whole, gone = trials[best], losses[best], (*gone, best)
            rest = [path for path in order[1:] if path != best]
            others = [p for p in blocks if p not in gone and p not in rest]
            still = self.count is not None and self.count - len(gone)
            left = (rest + others)[: max(FINALISTS, int(still))]
        return gone


def saved_by(network: Network, blocks: Mapping[str, Block], context: Context) -> dict[str, float]:
    """Milliseconds that each removal saves on the target; multiply-adds where that fails."""
    try:
        from lilliput.search.probe import probe

        trials = {path: remove(network, path) for path in blocks}
        prices = probe({"": network, **trials}, context.original.the_network(), context)
    except (ImportError, LilliputError) as error:
        context.journal.note(
            "block latency not measured", why=str(error), instead="multiply-adds saved"
        )
        return {path: float(block.macs) for path, block in blocks.items()}
    saved = {path: prices[""].best_ms - prices[path].best_ms for path in blocks}
    context.journal.note("block latency", saved_ms=saved)
    return saved


def mean_loss(network: Network, split: Split, context: Context) -> float:
    """The task's loss on these examples; without labels, the distance from the original."""
    teacher = None if split.targets is not None else context.original.the_network().module
    total = seen = 0.0
    batches = context.task.batches(split, network.preprocessing, BATCH, layout=context.data.layout)
    with torch.no_grad(), evaluating(network.module):
        for batch in batches:
            inputs = [torch.as_tensor(x) for x in batch.inputs]
            output = flat_outputs(network.module(*inputs))[0]
            if teacher is None:
                loss = context.task.loss(output, torch.as_tensor(batch.targets))
            else:
                loss = context.task.imitation(output, flat_outputs(teacher(*inputs))[0])
            total += float(loss) * len(output)
            seen += len(output)
    return total / max(seen, 1.0)


def _judging(context: Context) -> Split:
    """Validation examples: a choice between networks is a search, and those look at no others."""
    return context.data.split("validation")
