"""What of a search becomes networks: the finalists, or the members that the user asks for.

The front as the search judged it is in the journal before anything is trained, so that a reader of
the report may choose from it. Who is asked for later is trained by the same run, which looks up
all that it found; who is trained already stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lilliput.attempts import attempt
from lilliput.candidate import Candidate
from lilliput.errors import NotThere, nearest
from lilliput.measurement import Measurement
from lilliput.models.store import load_saved, save_network
from lilliput.search.evolution import Evolution
from lilliput.search.genomes import Variant, key_of
from lilliput.search.ladder import packed_bytes
from lilliput.search.members import Member
from lilliput.search.objectives import UNITS
from lilliput.search.rungs import metric_in_torch
from lilliput.search.searching import Quest, evolved, finalists, scales_of
from lilliput.search.workers import ray_ended

LISTED = "report.html and report.json of the run that was searched list its members"


def explored(quest: Quest, candidate: Candidate, *, suffix: str) -> Iterator[Candidate]:
    """The whole search of one candidate: each network as soon as it is trained.

    Args:
        quest: What is searched.
        candidate: Whose network that is.
        suffix: What the names of its children end in, before a number from the cheapest up, or
            before the id of a member that was asked for.

    Raises:
        NotThere: A member is asked for that the search never evaluated.
    """
    context = quest.context
    if quest.settings.deliver and context.journal.recall(f"{quest.key} generation 1") is None:
        context.progress.say(
            f"{quest.stage}: `deliver` names members of a search that is not in this run, so it "
            "is searched first; `lilliput resume` of the run that has them does not search"
        )
    with ray_ended():
        evolution = evolved(quest)
        front = evolution.front()
        _tell(quest, candidate, "front", front)
        chosen = _chosen(quest, evolution, candidate, f"{candidate.id}-{suffix}")
    beaten = [member for member in chosen.values() if member not in front]
    if beaten:
        _tell(quest, candidate, f"beaten {'+'.join(map(_id, beaten))}", beaten)
    for name, member in chosen.items():
        made = delivered(quest, member, candidate, name)
        if made is not None:
            yield made


def _id(member: Member) -> str:
    return key_of(np.array(member.genome))


def _tell(quest: Quest, candidate: Candidate, what: str, members: Sequence[Member]) -> None:
    """Journal members with their objectives, as the search judged them, and what they are."""

    def work() -> dict[str, Any]:
        scales, encoding = scales_of(quest), quest.encoding
        names, unit = scales.goals.names, quest.context.task.metric.unit
        told = [
            {
                "id": _id(member),
                "generation": member.generation + 1,
                "beaten": what != "front",
                "figures": {
                    name: share * scales.whole[name]
                    for name, share in zip(names, member.outcome.values, strict=False)
                },
                "parts": encoding.describe(np.array(member.genome)),
            }
            for member in members
        ]
        facts = {
            "search": quest.key,
            "stage": quest.stage,
            "candidate": candidate.id,
            "objectives": {name: UNITS.get(name, unit) for name in names},
            "examples": len(quest.shop.split(quest.settings.screen_examples)),
            "original": encoding.describe(encoding.seeds()[0]),
            "members": told,
        }
        return {"front": facts}

    quest.context.journal.once(f"{quest.key} {what}", work)


def _chosen(
    quest: Quest, evolution: Evolution[Variant], candidate: Candidate, stem: str
) -> dict[str, Member]:
    """{name: member} of all that are delivered: those that are trained already come first."""
    archive, recall = evolution.archive, quest.context.journal.recall
    numbered = [f"{stem}{number}" for number in range(1, quest.settings.points + 1)]
    done = {
        name: found
        for name in [*numbered, *(f"{stem}-{key}" for key in archive)]
        if (found := recall(training_key(quest, name))) is not None
    }
    names = {found["genome"]: name for name, found in done.items() if "genome" in found}
    if quest.settings.deliver:
        new = {key: f"{stem}-{key}" for key in _asked_for(quest, evolution, candidate)}
    else:
        climbed = map(_id, finalists(quest, evolution))
        new = dict(zip(climbed, numbered, strict=False))
    for key, name in new.items():
        # A number that another member has, of an earlier session, is not given away again.
        taken = done.get(name, {}).get("genome", key) != key
        names.setdefault(key, f"{stem}-{key}" if taken else name)
    return {name: archive[key] for key, name in names.items() if key in archive}


def _asked_for(quest: Quest, evolution: Evolution[Variant], candidate: Candidate) -> Iterator[str]:
    """The ids of `deliver` that are meant for the search of this candidate: `ID`, or `NAME/ID`."""
    for asked in quest.settings.deliver:
        whose, _, key = asked.rpartition("/")
        whose = whose or candidate.id
        if whose == candidate.id and key in evolution.archive:
            yield key
        elif whose == candidate.id:
            members = map(_id, evolution.front())
            raise NotThere(
                f"the search of {whose!r} has no member {key!r}",
                at=f"{quest.stage}: deliver",
                hint=f"{LISTED}; {nearest(key, members)}",
            )
        elif quest.context.journal.recall(f"{quest.stage} {whose} front") is None:
            raise NotThere(
                f"this run has no search of {whose!r}", at=f"{quest.stage}: deliver", hint=LISTED
            )


def training_key(quest: Quest, name: str) -> str:
    """Of the journal: the full training of what is delivered as `name`."""
    return f"{quest.key} train {name}"


def delivered(quest: Quest, member: Member, candidate: Candidate, name: str) -> Candidate | None:
    """The member trained in full and judged in torch; None if that fails."""
    context, variant = quest.context, quest.variant(member)
    path = context.network_path(name)

    def work() -> dict[str, Any]:
        epochs = quest.settings.epochs
        network = quest.shop.trained(variant, quest.training(), epochs=epochs, key=name)
        save_network(network, path)
        split = context.data.split("validation")
        return {
            "genome": key_of(np.array(member.genome)),
            "proxy": metric_in_torch(network, split, context),
            "proxy_drop": quest.shop.loss(network, variant, len(split)),
            "params": network.params,
            "coded_bytes": packed_bytes(network),
        }

    key = training_key(quest, name)
    done = attempt(key, work, context, stage=quest.stage, candidate=name)
    if done is None:
        return None
    costs = quest.shop.counter.of(variant, quest.shop.original)
    figures = {
        "proxy": (done["proxy"], context.task.metric.unit),
        "proxy_drop": (done["proxy_drop"], context.task.metric.unit),
        "params": (done["params"], ""),
        "macs": (costs["macs"], "MACs"),
        "coded_bytes": (done["coded_bytes"], "B"),
    }
    settings: dict[str, Any] = {
        quest.stage: {
            "algorithm": quest.settings.algorithm,
            "genome": key_of(np.array(member.genome)),
            "epochs": quest.settings.epochs,
            **quest.encoding.describe(np.array(member.genome)),
        }
    }
    return Candidate(
        id=name,
        network=load_saved(path, context.original.the_network().module),
        parent=candidate.id,
        stage=quest.stage,
        settings=settings,
        history=(*candidate.history, settings),
    ).measured(
        *(
            Measurement(quantity=quantity, value=value, unit=unit, estimated=True)
            for quantity, (value, unit) in figures.items()
        )
    )
