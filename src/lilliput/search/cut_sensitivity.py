"""Which channels a network can spare: one group cut at a time, the rest whole, nothing trained.

A group is judged by its cheapest channels, since those are what a cut would take. They are zeroed,
which is what the cut network computes to rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from lilliput.context import Context
from lilliput.data.dataset import Array
from lilliput.encode.execute import Feeds, relative_error
from lilliput.errors import Refused
from lilliput.meter.sensitivities import CutSensitivity
from lilliput.models.session import TorchSession
from lilliput.network import Network
from lilliput.prune.allocation import Policy, allocate
from lilliput.prune.analysis import Analysis, Group
from lilliput.prune.from_context import GRADIENT_BATCH
from lilliput.prune.groups import analyse
from lilliput.prune.importance import class_scores
from lilliput.prune.trial import zeroed
from lilliput.runs.cache import Collect, collected
from lilliput.search.rungs import drop_in_torch

CRITERION = "output"
"""It needs neither labels nor a norm, and is what `shrink` cuts by."""


def cut_sensitivities(
    network: Network,
    feeds: Feeds,
    context: Context,
    *,
    ratios: Sequence[float],
    collect: Collect = collected,
) -> list[CutSensitivity]:
    """Every group at every ratio, the group that loses most at its deepest cut first.

    Args:
        network: Left as it is.
        feeds: Batches that output errors are taken on, and channels are ranked by.
        context: Its validation examples give the drops; there are none without them.
        ratios: Shares of a group's channels that go.
        collect: Does the work, one piece a cut.

    Raises:
        Refused: No channel can be cut, with the reasons.
    """
    analysis = analyse(network)
    if not analysis.prunable:
        why = "; ".join(dict.fromkeys(r for group in analysis.frozen for r in group.reasons[:1]))
        raise Refused(f"no channel of {network.name!r} can be cut: {why}")
    cuts = dict(_cuts(network, analysis, feeds, ratios, context))
    judge = _Judge(network, analysis, feeds, context)
    work = {
        f"cut {ratio:g} of {group.name}": partial(judge, classes)
        for (group, ratio), classes in cuts.items()
    }
    figures = collect("one group of channels cut", work).values()
    rows = [
        _row(analysis, *place, classes, told)
        for (place, classes), told in zip(cuts.items(), figures, strict=True)
    ]
    worst: dict[str, float] = {}
    for row in rows:
        worst[row.group] = max(worst.get(row.group, 0.0), row.error)
    return sorted(rows, key=lambda row: -worst[row.group])


def _cuts(
    network: Network,
    analysis: Analysis,
    feeds: Feeds,
    ratios: Sequence[float],
    context: Context,
) -> Iterator[tuple[tuple[Group, float], tuple[int, ...]]]:
    """((group, ratio), classes that go), where the ratio comes to a channel at all."""
    scores = class_scores(
        network,
        analysis,
        CRITERION,
        batches=_small(feeds, network),
        rng=context.rng("sensitivity", CRITERION),
    )
    plans = {r: set(allocate(analysis, scores, Policy("local"), ratio=r).classes) for r in ratios}
    for group in analysis.prunable:
        for ratio, gone in plans.items():
            classes = tuple(number for number in group.classes if number in gone)
            if classes:
                yield (group, ratio), classes


def _small(feeds: Feeds, network: Network) -> Iterator[tuple[tuple[Array, ...], None]]:
    """The batches in parts of few examples, where the network takes any number."""
    fixed = network.fixed_batch is not None
    for batch in feeds():
        count = len(batch[0])
        size = count if fixed else GRADIENT_BATCH[CRITERION]
        for start in range(0, count, size):
            yield tuple(part[start : start + size] for part in batch), None


class _Named:
    """A session as something that gives named outputs."""

    def __init__(self, network: Network) -> None:
        self._session = TorchSession(network)

    def run(self, batch: tuple[Array, ...]) -> Mapping[str, Array]:
        return dict(zip(self._session.outputs, self._session.run(batch), strict=True))


class _Judge:
    """Figures of a copy of the network with some classes at zero."""

    def __init__(
        self, network: Network, analysis: Analysis, feeds: Feeds, context: Context
    ) -> None:
        self._analysis, self._feeds, self._context = analysis, feeds, context
        self._twin = network.copy()
        self._whole, self._cut = _Named(network), _Named(self._twin)

    def __call__(self, classes: Collection[int]) -> dict[str, Any]:
        """{"error", "drop"} without these classes."""
        split = self._context.data.validation
        with zeroed(self._twin.module, self._analysis, classes):
            error = relative_error(self._cut, self._whole, self._feeds)
            drop = drop_in_torch(self._twin, split, self._context) if len(split) else None
        return {"error": error, "drop": drop}


def _row(
    analysis: Analysis,
    group: Group,
    ratio: float,
    classes: Collection[int],
    told: Mapping[str, Any],
) -> CutSensitivity:
    return CutSensitivity(
        group=group.name,
        layers=group.layers,
        width=group.width,
        gone=len(classes),
        ratio=ratio,
        saved_macs=1 - analysis.macs(classes) / analysis.macs(),
        saved_params=1 - analysis.params(classes) / analysis.params(),
        **told,
    )
