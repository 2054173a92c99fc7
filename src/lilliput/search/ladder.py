"""Cheap rungs before dear ones: cut and fitted; on more examples; briefly trained; fully trained.

A cheap rung is worth what its order is worth: the rank correlation with the next rung is measured,
on members spread over all that were evaluated, and told.

Differs: in the specification rungs of masks and of new batch-norm statistics come first; here both
are the first rung, with the fit. A cut network runs faster than a masked one, and by the original's
statistics its order would say little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lilliput.codec.container import encode
from lilliput.context import Context
from lilliput.data.dataset import Split
from lilliput.distill.loop import Schedule, train
from lilliput.distill.sources import examples_for
from lilliput.meter.accuracy import metric_of
from lilliput.models.session import scores_in_torch
from lilliput.network import Network
from lilliput.prune.analysis import Analysis
from lilliput.prune.batchnorm import reestimate
from lilliput.prune.cutting import cut
from lilliput.prune.edits import cut_edit
from lilliput.prune.from_context import BATCH, examples
from lilliput.prune.refit import Gram, grams, refitted
from lilliput.prune.trial import cut_module, removals
from lilliput.search.genomes import Variant
from lilliput.search.grids import (
    FLOAT,
    OnGrid,
    held_on_grid,
    input_ranges,
    inputs_on_grids,
    with_weight_bits,
)
from lilliput.search.objectives import Counter, counter_of, float_file
from lilliput.search.rungs import metric_in_torch
from lilliput.search.settings import EvolutionSettings
from lilliput.search.shrinking import Short, Training

DISTRUST = 0.5
"""Rank correlation below which a rung's order says too little about the next one's."""


@dataclass(frozen=True)
class Workshop:
    """All that turns a variant of one network into a network, and judges it; nothing is written.

    Attributes:
        original: What is changed.
        analysis: Of the original.
        counter: Of its variants' costs.
        context: Task, data and seed.
        batches: Inputs that batch-norm statistics are taken from.
        known: Sums for the closed-form fit; none, and nothing is fitted.
        ranges: Of the inputs of layers, for activation bits.
        whole: {number of validation examples: the original's metric on them}.
    """

    original: Network
    analysis: Analysis
    counter: Counter
    context: Context
    batches: Sequence[Any]
    known: Mapping[str, Gram]
    ranges: Mapping[str, tuple[float, float]]
    whole: Mapping[int, float]

    def narrowed(self, variant: Variant, *, verify: bool) -> Network:
        """Cut, and fitted in closed form; weights keep all their bits."""
        if not variant.gone:
            return self.original
        if verify:
            smaller = cut(self.original, self.analysis, variant.gone)
        else:
            module = cut_module(self.original.module, self.analysis, variant.gone)
            edit = cut_edit(removals(self.analysis, variant.gone))
            smaller = self.original.edited(module, edit)
        # Weights that an earlier step gave a form to keep it: a fit would fill zeros again.
        held = {name.rpartition(".")[0] for name in self.original.held}
        known = {path: gram for path, gram in self.known.items() if path not in held}
        if known:
            smaller = refitted(smaller, self.original, self.analysis, variant.gone, known)
        return reestimate(smaller, self.batches)

    def built(self, variant: Variant) -> Network:
        """Cut, fitted, on its grids, with batch-norm statistics of its own; not verified."""
        return self._on_grids(self.narrowed(variant, verify=False), variant)

    def _on_grids(self, network: Network, variant: Variant) -> Network:
        coarser = any(bits < FLOAT for bits in variant.weight_bits.values())
        network = with_weight_bits(network, variant.weight_bits)
        return reestimate(network, self.batches) if coarser else network

    def figures(self, variant: Variant, examples: int) -> dict[str, float]:
        """{"loss" of the metric against the original, and every counted cost}."""
        network = self.built(variant)
        return {
            "loss": self.loss(network, variant, examples),
            **self.counter.of(variant, network),
        }

    def loss(self, network: Network, variant: Variant, examples: int) -> float:
        """How much worse than the original on validation examples, in the metric's unit."""
        split = self.split(examples)
        with inputs_on_grids(network.module, variant.activation_bits, self.ranges):
            scores = scores_in_torch(network, split, self.context)
        metric = self.context.task.metric
        lost = self.whole[len(split)] - metric_of(scores, metric).value
        return float(lost if metric.higher_is_better else -lost)

    def split(self, examples: int) -> Split:
        return self.context.data.split("validation").sample(examples)

    def trained(
        self, variant: Variant, training: Training, *, epochs: int | None, key: str
    ) -> Network:
        """Cut, fitted and distilled, on its grids all the while.

        Args:
            variant: What is changed.
            training: Learning rate, batch, and the steps of a short training.
            epochs: Of a full training; None for a short one, which is not verified.
            key: Names the training.
        """
        network = self.narrowed(variant, verify=epochs is not None)
        if epochs == 0:
            return self._on_grids(network, variant)
        source = examples_for(network, self.context, training.batch_size)
        brief = epochs is None
        trained = train(
            network,
            training.terms(self.context, labelled=source.labelled),
            Short(source, training.screen_steps) if brief else source,
            Schedule(epochs=1 if epochs is None else epochs, learning_rate=training.learning_rate),
            replace(self.context, checkpoints=None) if brief else self.context,
            key=key,
            teacher=self.context.teacher,
            companions=[OnGrid(variant.weight_bits)],
        )
        return held_on_grid(trained, variant.weight_bits)


def workshop(
    network: Network, analysis: Analysis, settings: EvolutionSettings, context: Context
) -> Workshop:
    """What a search builds its candidates with; examples are drawn by the run's seed."""
    batches = [x for x, _ in examples(network, context, settings.refit_examples, BATCH)]
    paths = [layer.path for layer in analysis.layers if layer.kind != "embedding"]
    modules = dict(network.module.named_modules())
    sizes = {settings.screen_examples, settings.rank_examples, len(context.data.validation)}
    return Workshop(
        original=network,
        analysis=analysis,
        counter=counter_of(network, analysis),
        context=context,
        batches=batches,
        known=grams(network, analysis, batches) if settings.refit else {},
        ranges=input_ranges(network, [p for p in paths if p in modules], batches),
        whole=_wholes(sizes - {0}, context),
    )


def _wholes(sizes: set[int], context: Context) -> dict[int, float]:
    """{number of validation examples: the original's metric on them}, once a run."""
    found = {}
    for size in sorted(sizes):
        split = context.data.split("validation").sample(size)

        def work(split: Any = split) -> dict[str, float]:
            return {"metric": metric_in_torch(context.original.the_network(), split, context)}

        key = f"original on {len(split)} validation examples"
        found[len(split)] = context.journal.once(key, work)["metric"]
    return found


def packed_bytes(network: Network) -> int:
    """Length of the `.lil` file of the network's float file."""
    return len(encode(float_file(network))[0])


def rank_correlation(cheap: Mapping[str, float], dear: Mapping[str, float]) -> float:
    """Kendall's τ of what both rungs judged; NaN of fewer than three, or when all are equal.

    >>> rank_correlation({"a": 1, "b": 2, "c": 3}, {"a": 5, "b": 6, "c": 9})
    1.0
    """
    from scipy.stats import kendalltau

    both = [name for name in cheap if name in dear]
    ours, theirs = [cheap[n] for n in both], [dear[n] for n in both]
    if len(both) < 3 or len(set(ours)) == 1 or len(set(theirs)) == 1:
        return float("nan")
    return float(kendalltau(ours, theirs).statistic)


def trust(correlation: float, cheap: str, dear: str, count: int) -> str:
    """What the correlation of two rungs means, in a sentence."""
    if np.isnan(correlation):
        return f"{cheap} against {dear}: {count} candidates say nothing about its order"
    verdict = (
        f"do not trust {cheap}: its order says little about that of {dear}"
        if correlation < DISTRUST
        else f"{cheap} orders candidates much as {dear} does"
    )
    return f"Kendall's tau of {correlation:.2f} on {count} candidates: {verdict}"
