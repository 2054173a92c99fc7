"""The rungs of `shrink`: price on the target, short training, full training.

Every result is in the journal before the next begins, keyed by the architecture, so that a resumed
search goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lilliput.attempts import attempt
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.loop import EpochFacts, Schedule, train
from lilliput.distill.losses import Imitation, LossTerm, Truth
from lilliput.distill.sources import Source, examples_for
from lilliput.distill.speed import best_gear, torch_threads
from lilliput.errors import LilliputError
from lilliput.measurement import Measurement
from lilliput.models.store import load_saved, save_network
from lilliput.network import Network
from lilliput.prune import removable_blocks, remove
from lilliput.prune.batchnorm import reestimate
from lilliput.prune.channels import Goal
from lilliput.prune.cost import network_macs
from lilliput.prune.edits import remove_edit
from lilliput.prune.from_context import examples, shrink
from lilliput.search.architectures import Architecture, block_chain, name_of, spread, unique
from lilliput.search.finalists import Screened, next_to_screen, undominated
from lilliput.search.pace import Pace, teacher_seconds
from lilliput.search.probe import Probe, probe
from lilliput.search.rungs import drop_in_torch, metric_in_torch

SCREEN_EXAMPLES = 2000
"""Validation examples that judge a short training."""

RANK_EXAMPLES = 500
"""Validation examples that rank blocks: the differences are large, and there are many to rank."""

REPAIR_EXAMPLES = 512
"""Training examples that batch-norm statistics are taken from before a block is judged."""


@dataclass(frozen=True)
class Considered:
    """An architecture and its price on the target."""

    architecture: Architecture
    price: Probe
    macs: int


@dataclass(frozen=True)
class Training:
    """What short and full trainings share."""

    learning_rate: float
    batch_size: int
    screen_steps: int
    temperature: float = 4.0
    imitation: float = 0.9

    def terms(self, context: Context, *, labelled: bool) -> list[LossTerm]:
        imitation = Imitation(context.task, self.imitation if labelled else 1.0, self.temperature)
        if not labelled:
            return [imitation]
        return [Truth(context.task, 1 - self.imitation), imitation]


def with_best_gear(network: Network, batch_size: int, context: Context) -> Context:
    """The context with the threads and the precision that train this network fastest.

    The choice is journalled: sums depend on it in their last digits.
    """

    def work() -> dict[str, Any]:
        source = examples_for(network, context, batch_size)
        return best_gear(network, source, context)._asdict()

    gear = context.journal.once("gear", work)
    return replace(context, train_threads=int(gear["threads"]), train_precision=gear["precision"])


def considered_architectures(
    original: Network,
    context: Context,
    *,
    most_blocks: int | None,
    widths: Sequence[float],
    protect: Sequence[str],
    count: int,
) -> list[Considered]:
    """Architectures worth a short training: timed on the target, within the budget, undominated."""

    def work() -> dict[str, Any]:
        removals = [(), *_removals(original, context, most_blocks)]
        found = unique(_narrowed(original, removals, widths, protect, context))
        networks = {a.key: a.build(original) for a in found if a.edits}
        prices = probe(networks, original, context)
        rows = [
            {
                "architecture": {
                    "key": a.key,
                    "removed": a.removed,
                    "narrowed": a.narrowed,
                    "edits": a.edits,
                },
                "price": prices[a.key].model_dump(),
                "macs": network_macs(networks[a.key]),
            }
            for a in found
            if a.edits
        ]
        return {"rows": rows}

    rows = context.journal.once("architectures", work)["rows"]
    considered = [_considered(row) for row in rows]
    return chosen_by_price(considered, context, count)


def _considered(row: Mapping[str, Any]) -> Considered:
    described = row["architecture"]
    architecture = Architecture(
        key=described["key"],
        removed=tuple(described["removed"]),
        narrowed=described["narrowed"],
        edits=tuple(described["edits"]),
    )
    return Considered(architecture, Probe.model_validate(row["price"]), int(row["macs"]))


def chosen_by_price(
    considered: Sequence[Considered], context: Context, count: int
) -> list[Considered]:
    """Within the budget's hard limits, undominated, fastest first.

    With a limit on the drop all of them, for the screening itself decides where to stop; else
    `count`, spread over the times.

    What breaks a limit is left out only if something keeps it; else the nearest are kept, so that
    the user sees how far off the budget is.
    """
    kept = [c for c in considered if _within(c, context)] or sorted(
        considered, key=lambda c: c.price.ratio
    )[: max(count // 2, 1)]
    worthwhile = [c for c in kept if c.price.ratio < 1.0] or kept
    by_key = {c.architecture.key: c for c in worthwhile}
    front = undominated(Screened(key, c.price.ratio, float(c.macs)) for key, c in by_key.items())
    keys = [a.key for a in front]
    if context.budget.max_drop is None:
        keys = spread(keys, count)
    return [by_key[key] for key in keys]


def _within(considered: Considered, context: Context) -> bool:
    limits, price = context.budget.limits(), considered.price
    prices = {"latency": price.best_ms, "bytes": price.least_bytes, "macs": considered.macs}
    return all(prices[name] <= limit for name, limit in limits.items() if name in prices)


def _removals(original: Network, context: Context, most: int | None) -> list[tuple[str, ...]]:
    """Sets of blocks to leave out, each one block larger than the last."""
    blocks = list(removable_blocks(original))
    if not blocks or most == 0:
        return []
    singles = probe({path: remove(original, path) for path in blocks}, original, context)
    saved = {path: 1.0 - price.ratio for path, price in singles.items()}
    split = context.data.split("validation").sample(RANK_EXAMPLES)
    batches = _repair_batches(original, context)

    def loss_without(gone: tuple[str, ...]) -> float:
        network = original
        for path in gone:
            network = remove(network, path)
        return drop_in_torch(reestimate(network, batches), split, context)

    chain = block_chain(blocks, saved, loss_without, most=len(blocks) if most is None else most)
    label = "ranking blocks"
    return list(context.progress.track(chain, label=label, total=len(blocks)))


def _repair_batches(network: Network, context: Context) -> list[Any]:
    return [x for x, _ in examples(network, context, REPAIR_EXAMPLES, 128)]


def _rebuilt(one: Considered, context: Context) -> Network:
    """The architecture with the original's weights, its batch norms estimated again."""
    original = context.original.the_network()
    return reestimate(one.architecture.build(original), _repair_batches(original, context))


def _narrowed(
    original: Network,
    removals: Sequence[tuple[str, ...]],
    widths: Sequence[float],
    protect: Sequence[str],
    context: Context,
) -> list[Architecture]:
    """Every set of blocks with every width; what cannot be cut is left out."""
    found = []
    for removed in removals:
        edits = tuple(remove_edit(path) for path in removed)
        base = Architecture(name_of(removed, 0.0), removed, 0.0, edits).build(original)
        for share in widths:
            with suppress(LilliputError):
                cut = narrowed(base, share, protect, context) if share else base
                own = cut.edits[len(original.edits) :]
                found.append(Architecture(name_of(removed, share), removed, share, own))
    return found


def narrowed(network: Network, share: float, protect: Sequence[str], context: Context) -> Network:
    """The network with about `share` of its multiply-adds cut away, on the target's width grid."""
    goal = Goal(max_macs=network_macs(network) * (1.0 - share))
    return shrink(network, context, goal, protect=protect, bn_images=0)


def screened_drops(
    considered: Sequence[Considered],
    training: Training,
    count: int,
    context: Context,
    *,
    hopeful: Callable[[Screened], bool],
) -> list[Screened]:
    """At most `count` architectures after a short distillation, fastest first.

    Those around the fastest that is `hopeful`. One that fails is left out.
    """
    by_key = {one.architecture.key: one for one in considered}
    screened: dict[str, Screened] = {}
    while len(screened) < count:
        verdicts = {key: hopeful(one) for key, one in screened.items()}
        key = next_to_screen(list(by_key), verdicts)
        if key is None:
            break
        found = _screened(by_key[key], training, context)
        if found is None:
            del by_key[key]
        else:
            screened[key] = found
    return sorted(screened.values(), key=lambda one: one.cost)


def _screened(one: Considered, training: Training, context: Context) -> Screened | None:
    """One short training, done now or read from the journal, and its pace; None if it fails."""
    key = one.architecture.key

    def work() -> dict[str, Any]:
        network, pace = _short_training(one, training, context)
        split = context.data.split("validation").sample(SCREEN_EXAMPLES)
        lost = drop_in_torch(network, split, context)
        context.progress.say(
            f"{key}: {one.price.ratio:.2f}× the time, "
            f"{lost:.2f} {context.task.metric.unit} lost after a short training"
        )
        return {"drop": lost, **pace.as_json()}

    done = attempt(f"screen {key}", work, context, stage="shrink", candidate=key)
    if done is None:
        return None
    pace = Pace(done["seconds_a_step"], done["teacher_seconds"])
    return Screened(key, one.price.ratio, float(one.macs), done["drop"], pace)


@dataclass(frozen=True)
class Short:
    """The first batches of an epoch, as an epoch of its own."""

    source: Source
    count: int

    @property
    def labelled(self) -> bool:
        return self.source.labelled

    def epoch(self, rng: np.random.Generator) -> Any:
        for number, batch in enumerate(self.source.epoch(rng)):
            if number >= self.count:
                return
            yield batch

    def steps(self) -> int:
        return min(self.count, self.source.steps())


def _short_training(one: Considered, training: Training, context: Context) -> tuple[Network, Pace]:
    # One epoch has nothing to go on from, and a pace that was read from a checkpoint is none.
    context = replace(context, checkpoints=None)
    network = _rebuilt(one, context)
    source = examples_for(network, context, training.batch_size)
    short = Short(source, training.screen_steps)
    told: list[EpochFacts] = []
    trained = train(
        network,
        training.terms(context, labelled=source.labelled),
        short,
        Schedule(epochs=1, learning_rate=training.learning_rate),
        context,
        key=f"screen {one.architecture.key}",
        teacher=context.teacher,
        on_epoch=told.append,
    )
    with torch_threads(context.train_threads):
        inputs, _ = next(source.epoch(context.rng("pace")))
        asking = teacher_seconds(
            context.the_teacher(), inputs, source.steps(), context.train_precision
        )
    # An earlier candidate may have had the teacher's answers to these very batches.
    working = sum(facts.seconds - (facts.asking if asking else 0.0) for facts in told)
    return trained, Pace(working / max(short.steps(), 1) + asking, asking)


def trained_in_full(
    one: Considered, training: Training, epochs: int, context: Context
) -> Candidate | None:
    """The architecture distilled and judged in torch; None if that fails."""
    key = one.architecture.key
    path = context.network_path(key)

    def work() -> dict[str, Any]:
        network = _rebuilt(one, context)
        source = examples_for(network, context, training.batch_size)
        trained = train(
            network,
            training.terms(context, labelled=source.labelled),
            source,
            Schedule(epochs=epochs, learning_rate=training.learning_rate),
            context,
            key=key,
            teacher=context.teacher,
        )
        save_network(trained, path)
        split = context.data.split("validation")
        return {
            "proxy": metric_in_torch(trained, split, context),
            "proxy_drop": drop_in_torch(trained, split, context),
        }

    done = attempt(f"train {key}", work, context, stage="shrink", candidate=key)
    if done is None:
        return None
    unit = context.task.metric.unit
    return Candidate(
        id=key,
        network=load_saved(path, context.original.the_network().module),
        settings={"removed": list(one.architecture.removed), "narrowed": one.architecture.narrowed},
    ).measured(
        Measurement(quantity="proxy", value=done["proxy"], unit=unit, estimated=True),
        Measurement(quantity="proxy_drop", value=done["proxy_drop"], unit=unit, estimated=True),
        Measurement(quantity="macs", value=one.macs, unit="MACs", estimated=True),
    )
