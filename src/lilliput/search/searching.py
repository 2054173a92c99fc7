"""A search by evolution from end to end: generations, rungs, delivered networks.

Every result is in the journal before the next begins. A search that is resumed asks again for what
it asked for, gets the answers from the journal, and so ends where an undisturbed one ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from lilliput.attempts import FAILED
from lilliput.context import Context, SilentJournal, SilentProgress
from lilliput.errors import Refused
from lilliput.search.choosing import best, spread_by_loss, with_loss, worth_delivering
from lilliput.search.evaluation import Evaluations, Figures, Scales
from lilliput.search.evolution import Evolution
from lilliput.search.genomes import Encoding, Genome, Variant, key_of
from lilliput.search.ladder import Workshop, rank_correlation, trust
from lilliput.search.members import Member
from lilliput.search.objectives import measured_latencies, widths_key
from lilliput.search.settings import EvolutionSettings
from lilliput.search.shrinking import Training
from lilliput.search.workers import trainers

UNTRAINED_SHARE = 0.25
"""Of the metric: what a candidate may lose before any training, unless a limit is set."""

ON_SECOND = 4
"""Members on the second rung for every network that is delivered."""

ON_THIRD = 2
"""Members with a short training for every network that is delivered."""


@dataclass(frozen=True)
class Quest:
    """One search under way.

    Attributes:
        key: Names it in the journal.
        stage: The recipe's word for it.
        encoding: Of variants of the network.
        shop: Builds and judges variants.
        settings: How long, at what.
        context: Of the run.
    """

    key: str
    stage: str
    encoding: Encoding[Variant]
    shop: Workshop
    settings: EvolutionSettings
    context: Context

    def variant(self, member: Member) -> Variant:
        return self.encoding.express(np.array(member.genome))

    def silent(self) -> Quest:
        """The same without any tie to this process: what workers are given."""
        context = replace(self.context, journal=SilentJournal(), progress=SilentProgress())
        return replace(self, context=context, shop=replace(self.shop, context=context))

    def training(self) -> Training:
        settings = self.settings
        return Training(settings.learning_rate, settings.batch_size, settings.screen_steps)


def refuse_unsearchable(stage: str, context: Context, *, labels: bool) -> None:
    """Refuse, with a way out, what cannot be searched by this run's data and original.

    Args:
        stage: The recipe's word for the search.
        context: Of the run.
        labels: Whether training examples need labels.

    Raises:
        Refused: No torch network to imitate, or no labels.
        LilliputError: No training or no validation examples.
    """
    if context.original.network is None:
        raise Refused(
            f"{stage} has no teacher: the original is a file, not a torch network",
            hint="give the network's factory and its weights",
        )
    context.data.split("train")
    context.data.split("validation")
    if labels and context.data.train.targets is None:
        raise Refused(
            f"{stage} rates channels by a criterion that needs labels, and the training examples "
            "have none",
            hint="use `criterion: output`, which needs none",
        )


def evolved(quest: Quest) -> Evolution[Variant]:
    """All generations, each noted as it ends."""
    settings, context = quest.settings, quest.context
    scales = scales_of(quest)
    evolution: Evolution[Variant] = Evolution(
        quest.encoding,
        scales.goals,
        algorithm=settings.algorithm,
        population=settings.population,
        seed=context.derived_seed(quest.key, settings.seed),
    )
    evaluate = Evaluations(
        quest.key,
        quest.stage,
        partial(figures_of, quest.silent()),
        context,
        context.workers,
        partial(_latencies, quest) if "latency" in settings.objectives else None,
    )
    spent = 0.0
    for number in range(1, settings.generations + 1):
        if settings.minutes is not None and spent >= settings.minutes:
            context.progress.say(f"{quest.stage}: the time to evolve is over")
            break
        spent = _generation(quest, evolution, evaluate, scales, number, spent)
    return evolution


def _generation(
    quest: Quest,
    evolution: Evolution[Variant],
    evaluate: Evaluations,
    scales: Scales,
    number: int,
    spent: float,
) -> float:
    """One generation, cut short when the time is over; the minutes of all up to its end.

    Both are journalled with it: a run that is resumed ends where it had ended.
    """
    settings, context, began = quest.settings, quest.context, time.monotonic()
    key = f"{quest.key} generation {number}"
    label = f"generation {number} of {settings.generations}"

    def minutes() -> float:
        return spent + (time.monotonic() - began) / 60

    def over() -> bool:
        return before is None and settings.minutes is not None and minutes() >= settings.minutes

    before = context.journal.recall(key)
    cut = None if before is None else before["generation"].get("cut")
    if cut is not None:
        evolution.shorten(cut)
    asked = evolution.ask()
    told = evaluate(asked, label=label, over=over)
    if len(told) < len(asked):
        cut = len(told)
        evolution.shorten(cut)
    evolution.tell([scales.outcome(one) for one in told])
    facts = {**_facts(quest, evolution, number), "minutes": minutes(), "cut": cut}
    noted = context.journal.once(key, partial(dict, generation=facts))["generation"]
    context.progress.say(
        f"{label}: {facts['front']} on the front, hypervolume {facts['hypervolume']:.4f}"
    )
    return float(noted.get("minutes", spent))


def figures_of(quest: Quest, genome: Genome) -> Figures:
    """What the first rung says of a genome: its loss, and every cost that is counted."""
    variant = quest.encoding.express(genome)
    return quest.shop.figures(variant, quest.settings.screen_examples)


def _latencies(quest: Quest, genomes: Sequence[Genome]) -> list[Figures]:
    """Measured once for all that have the same shapes."""
    shop, context = quest.shop, quest.context
    variants = [quest.encoding.express(genome) for genome in genomes]
    keys = [f"{quest.key} latency {widths_key(shop.analysis, v.gone)}" for v in variants]
    known = {key: context.journal.recall(key) for key in keys}
    fresh = {
        key: shop.built(Variant(gone=variant.gone))
        for key, variant in zip(keys, variants, strict=True)
        if known[key] is None
    }
    for key, ratio in measured_latencies(fresh, shop.original, context).items():
        known[key] = context.journal.once(key, partial(dict, latency=ratio))
    return [{"latency": float((known[key] or {})["latency"])} for key in keys]


def scales_of(quest: Quest) -> Scales:
    """How the figures of candidates become shares, by what the original has and costs.

    Raises:
        Refused: The limit on the metric allows no loss at all.
    """
    settings, shop = quest.settings, quest.shop
    split = shop.split(settings.screen_examples)
    whole = shop.whole[len(split)]
    allowed = UNTRAINED_SHARE * abs(whole) if settings.max_drop is None else settings.max_drop
    if settings.min_metric is not None:
        metric = quest.context.task.metric
        lost = whole - settings.min_metric
        allowed = lost if metric.higher_is_better else -lost
        if allowed <= 0:
            raise Refused(
                f"min_metric {settings.min_metric:g} is no limit on what is lost: the original has "
                f"{whole:.2f} {metric.unit} on {len(split)} validation examples",
                hint="give less than that, or `max_drop`",
            )
    costs = shop.counter.of(Variant(), shop.original)
    wholes = {"loss": whole, "latency": 1.0, **costs}
    return Scales.of(settings.objectives, wholes, allowed, settings.most)


def _facts(quest: Quest, evolution: Evolution[Variant], number: int) -> dict[str, Any]:
    members = evolution.archive.values()
    return {
        "search": quest.key,
        "algorithm": quest.settings.algorithm,
        "generation": number,
        "evaluated": len(members),
        "failed": sum(bool(m.outcome.failed) for m in members),
        "infeasible": sum(not m.outcome.feasible for m in members),
        "front": len(evolution.front()),
        "hypervolume": evolution.hypervolumes[-1],
    }


def finalists(quest: Quest, evolution: Evolution[Variant]) -> list[Member]:
    """Members worth a full training, cheapest first; each rung decides who climbs the next."""
    settings, shop, goals = quest.settings, quest.shop, evolution.goals
    sound = [m for m in evolution.archive.values() if m.outcome.feasible]
    if not sound:
        sound = [m for m in evolution.archive.values() if not m.outcome.failed]
    sample = spread_by_loss(sound, settings.tau_sample)
    left = sound
    whole = scales_of(quest).whole["loss"]
    losses = {key_of(np.array(m.genome)): m.outcome.values[0] * whole for m in sound}
    below = f"the rung of {min(settings.screen_examples, len(shop.split(10**9)))} examples"
    for rung in _rungs(quest):
        left = best(left, goals, rung.members * settings.points)
        climbing = {key_of(np.array(m.genome)): m for m in [*left, *sample]}
        found = _climbed(quest, rung, climbing)
        _tell(quest, losses, found, below, rung.name)
        left = [
            with_loss(m, found[key] / whole)
            for m in left
            if (key := key_of(np.array(m.genome))) in found
        ]
        below, losses = rung.name, {**losses, **found}
    return worth_delivering(left, goals, settings.points)


@dataclass(frozen=True)
class Rung:
    """One between the first and the last.

    Attributes:
        name: In words, for the journal and the user.
        members: That climb to it, for every network that is delivered.
        score: {"loss"} of a genome; goes to workers.
        workers: Who evaluates.
    """

    name: str
    members: int
    score: Callable[[Quest, Genome], Figures]
    workers: str


def _rungs(quest: Quest) -> Iterator[Rung]:
    settings, context = quest.settings, quest.context
    count = min(settings.rank_examples, len(context.data.validation))
    if count > settings.screen_examples:
        yield Rung(f"the rung of {count} examples", ON_SECOND, judged_again, context.workers)
    if settings.screen_steps:
        name = f"the rung of {settings.screen_steps} steps"
        yield Rung(name, ON_THIRD, trained_briefly, trainers(context))


def judged_again(quest: Quest, genome: Genome) -> Figures:
    """What the rung of more examples says."""
    variant = quest.encoding.express(genome)
    return {
        "loss": quest.shop.loss(quest.shop.built(variant), variant, quest.settings.rank_examples)
    }


def trained_briefly(quest: Quest, genome: Genome) -> Figures:
    """What is lost after a short training, which depends on the seed and the genome alone."""
    variant, key = quest.encoding.express(genome), f"{quest.key} brief {key_of(genome)}"
    network = quest.shop.trained(variant, quest.training(), epochs=None, key=key)
    examples = quest.settings.rank_examples or len(quest.context.data.validation)
    return {"loss": quest.shop.loss(network, variant, examples)}


def _climbed(quest: Quest, rung: Rung, members: Mapping[str, Member]) -> dict[str, float]:
    """The loss of each on the rung, done once a run; what fails is left out."""
    score, key = partial(rung.score, quest.silent()), f"{quest.key} {rung.name}"
    evaluate = Evaluations(key, quest.stage, score, quest.context, rung.workers)
    told = evaluate([np.array(m.genome) for m in members.values()], label=rung.name)
    return {
        name: float(one["loss"])
        for name, one in zip(members, told, strict=True)
        if FAILED not in one
    }


def _tell(
    quest: Quest, cheap: Mapping[str, float], dear: Mapping[str, float], below: str, rung: str
) -> None:
    both = [name for name in cheap if name in dear]
    correlation = rank_correlation(cheap, dear)
    sentence = trust(correlation, below, rung, len(both))
    facts = {
        "search": quest.key,
        "rungs": [below, rung],
        "tau": None if np.isnan(correlation) else correlation,
        "candidates": len(both),
        "says": sentence,
    }
    quest.context.journal.once(f"{quest.key} tau {rung}", partial(dict, rung=facts))
    quest.context.progress.say(sentence)
