"""What narrowing needs of a run: scores and statistics from its data, its target's width grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from lilliput.context import Context
from lilliput.errors import LilliputError
from lilliput.network import Network
from lilliput.prune.allocation import Normalise, Policy, RoundWidth, multiples_of
from lilliput.prune.analysis import Analysis
from lilliput.prune.batchnorm import reestimate
from lilliput.prune.channels import Goal, Narrower, Repair, Score, narrow
from lilliput.prune.importance import NEEDS_DATA, Scores, class_scores

BATCH = 128
"""Examples a batch for batch-norm statistics."""

GRADIENT_BATCH = {"taylor": 32, "fisher": 8, "output": 8}
"""Examples a batch for gradients: squares should be of few examples."""

UNGRIDDED = ("null", "reference", "torch")
"""Runtimes whose times say nothing about widths."""


def shrink(
    network: Network,
    context: Context,
    goal: Goal,
    *,
    criterion: str = "output",
    scope: Literal["global", "local"] = "global",
    normalise: Normalise = "macs",
    protect: Sequence[str] = (),
    rounds: int = 1,
    multiple_of: int | Literal["auto"] = "auto",
    min_width: int = 1,
    score_images: int = 256,
    bn_images: int = 512,
    measure_ms: Callable[[Network], float] | None = None,
) -> Network:
    """The network with channels cut until the goal is met, by the run's data and target.

    Args:
        network: Left as it is.
        context: Training examples for scores and statistics; the target for the width grid.
        goal: What to reach.
        criterion: See `lilliput.prune.importance`.
        scope: See `Policy`.
        normalise: See `Policy`.
        protect: Globs over module paths whose inputs and outputs keep their widths.
        rounds: Number of cuts, with statistics taken anew after each.
        multiple_of: Widths of layers become multiples of this; "auto" measures the target once.
        min_width: Channels that each group keeps.
        score_images: Training examples for criteria that need gradients.
        bn_images: Training examples for batch-norm statistics; 0 leaves them as they are.
        measure_ms: Latency of a network on the target, for a goal in milliseconds.

    Raises:
        Refused: The goal cannot be reached, or a glob matches nothing.
    """
    how = Narrower(
        score=scorer(context, criterion, score_images),
        policy=Policy(scope, normalise, min_width, round_width=grid(context, multiple_of)),
        repair=repairer(context, bn_images),
        measure_ms=measure_ms,
        protect=protect,
        rounds=rounds,
        note=context.journal.note,
    )
    return narrow(network, goal, how)


def scorer(context: Context, criterion: str, images: int) -> Score:
    """Scores by the criterion, with gradients of the task's loss on training examples."""

    def score(network: Network, analysis: Analysis) -> Scores:
        size = GRADIENT_BATCH.get(criterion, BATCH)
        needed = criterion in NEEDS_DATA
        return class_scores(
            network,
            analysis,
            criterion,
            batches=examples(network, context, images, size) if needed else (),
            loss=context.task.loss,
            rng=context.rng("prune", criterion),
        )

    return score


def repairer(context: Context, images: int) -> Repair:
    """Batch-norm statistics from training examples; nothing is changed when `images` is 0."""

    def repair(network: Network) -> Network:
        if images == 0:
            return network
        return reestimate(network, (x for x, _ in examples(network, context, images, BATCH)))

    return repair


def examples(
    network: Network, context: Context, count: int, size: int
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(inputs, targets) of about `count` training examples, drawn by the run's seed.

    Training batches, not whole pictures: for tasks on pictures of many sizes those are patches.
    """
    split = context.data.split("train")
    batches = context.task.training_batches(
        split,
        network.preprocessing,
        network.fixed_batch or min(size, count, context.task.epoch_steps(split, 1)),
        context.rng("prune", "examples"),
        layout=context.data.layout,
    )
    seen = 0
    for batch in batches:
        yield batch.inputs, batch.targets
        seen += len(batch.inputs[0])
        if seen >= count:
            return


def grid(context: Context, multiple_of: int | Literal["auto"]) -> RoundWidth | None:
    """The width grid: multiples of a number, or what the target was measured to run best."""
    if multiple_of != "auto":
        return None if multiple_of == 1 else multiples_of(multiple_of)
    if context.target.runtime in UNGRIDDED:
        return None
    from lilliput.meter.layer_nets import KINDS
    from lilliput.meter.widths import width_profile

    try:
        profile = width_profile(context.target)
    except LilliputError as error:
        context.journal.note("no width profile", why=str(error), instead="multiples of 4")
        return multiples_of(4)

    def round_width(width: int, kind: str) -> int:
        return profile.round(max(width, 1), kind if kind in KINDS else "conv1x1")

    return round_width
