"""What a network is worth on a few examples, in torch: the cheap rungs of every search."""

from __future__ import annotations

from dataclasses import replace

from lilliput.context import Context
from lilliput.data.dataset import Split
from lilliput.meter.accuracy import metric_of
from lilliput.models.session import scores_in_torch, with_answers
from lilliput.network import Network


def judging(context: Context) -> Context:
    """The context of a search: its validation examples have a truth to judge candidates by.

    Where they came without one the original's answers stand in for it, and what a candidate
    loses is agreement with the original.

    Raises:
        LilliputError: The data has no validation examples.
    """
    original, data = context.original.the_network(), context.data
    split = with_answers(data.split("validation"), original, context)
    return replace(context, data=replace(data, validation=split))


def metric_in_torch(network: Network, split: Split, context: Context) -> float:
    """The task's metric on the split, in its unit."""
    return metric_of(scores_in_torch(network, split, context), context.task.metric).value


def drop_in_torch(network: Network, split: Split, context: Context) -> float:
    """How much worse than the original on the same examples; negative when better.

    The original is scored once a run for each number of examples.
    """

    def work() -> dict[str, float]:
        return {"metric": metric_in_torch(context.original.the_network(), split, context)}

    whole = context.journal.once(f"original on {len(split)} validation examples", work)["metric"]
    lost = whole - metric_in_torch(network, split, context)
    return float(lost if context.task.metric.higher_is_better else -lost)
