"""The two searches as stages: settings, refusals, and what they deliver."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lilliput.candidate import Candidate
from lilliput.data.dataset import Split
from lilliput.errors import LilliputError, Refused
from lilliput.export.onnx_file import export_network
from lilliput.prune import network_macs
from lilliput.runs.journal import JournalFile
from lilliput.runtimes.opening import open_session
from lilliput.search.choosing import worth_delivering
from lilliput.search.delivering import explored
from lilliput.search.genomes import Variant
from lilliput.search.members import Goals, Member, Outcome
from lilliput.search.searching import evolved, finalists
from lilliput.steps.search_bits import SearchBits
from lilliput.steps.search_filters import SearchFilters
from lilliput.target import Target
from lilliput.testing.tiny import tiny_context, tiny_network

BRIEF = {
    "population": 6,
    "generations": 2,
    "screen_examples": 24,
    "rank_examples": 48,
    "screen_steps": 1,
    "tau_sample": 2,
    "points": 2,
    "epochs": 0,
    "batch_size": 32,
    "refit_examples": 32,
    "max_drop": 90.0,
}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objectives": ["bytes", "loss"]}, "the first objective is loss, not bytes"),
        ({"objectives": ["loss", "macs", "macs"]}, "an objective is given twice"),
        ({"objectives": ["loss"]}, "at least 2"),
        ({"max_drop": 1, "min_metric": 90}, "not both"),
        ({"population": 2}, "greater than or equal to 4"),
    ],
)
def test_settings_that_make_no_sense(settings, says):
    with pytest.raises(ValidationError, match=says):
        SearchFilters.model_validate(settings)


def test_a_file_cannot_be_imitated(tmp_path):
    context = tiny_context(tmp_path)
    file = export_network(tiny_network(), tmp_path / "tiny.onnx")
    given = context.original
    context = replace(context, original=Candidate("original", artifact=file))
    for stage in (SearchFilters(), SearchBits()):
        with pytest.raises(Refused, match=f"{stage.name} has no teacher") as refused:
            stage.requires(given, context)
        assert "factory" in str(refused.value)


def test_only_a_criterion_by_the_loss_needs_labels(tmp_path):
    context = tiny_context(tmp_path)
    data = context.data
    untold = replace(context, data=replace(data, train=Split(data.train.inputs)))
    with pytest.raises(Refused, match="needs labels") as refused:
        SearchFilters(criterion="taylor").requires(context.original, untold)
    assert "criterion: output" in str(refused.value)
    SearchFilters().requires(context.original, untold)


def test_without_labels_the_original_is_the_truth(tmp_path):
    context = tiny_context(tmp_path)
    bare = context.data.map_splits(lambda split: Split(split.inputs))
    stage = SearchFilters(**{**BRIEF, "screen_steps": 0, "generations": 1, "points": 1})
    blind = replace(context, data=bare)
    stage.requires(context.original, blind)
    (found,) = stage.explore(context.original, blind)
    assert found.value("proxy_drop") == pytest.approx(100 - found.value("proxy"))


def test_a_glob_that_matches_nothing_is_refused(tmp_path):
    context = tiny_context(tmp_path)
    with pytest.raises(LilliputError, match="no layer of 'tiny' matches 'stam'"):
        SearchBits(protect=["stam"]).requires(context.original, context)


def test_delivered_weights_lie_on_their_grids_and_are_held(tmp_path):
    context = tiny_context(tmp_path)
    stage = SearchBits(**{**BRIEF, "epochs": 1}, bits=(2, 4), protect=["classify"])
    children = list(stage.explore(context.original, context))
    fewer = 0
    for child in children:
        network, told = child.the_network(), child.settings["search_bits"]["weight_bits"]
        assert "classify" not in told
        for path, bits in told.items():
            weight = network.module.get_submodule(path).weight.detach()
            assert (network.held.get(f"{path}.weight") == "fixed") == (bits < 32)
            if bits < 32:
                fewer += 1
                assert all(len(row.unique()) <= 2**bits - 1 for row in weight.flatten(1))
    assert fewer


def test_without_a_training_what_is_delivered_is_what_was_judged(tmp_path):
    context = tiny_context(tmp_path)
    quest = SearchBits(**BRIEF).quest(context.original, context)
    paths = quest.encoding.express(quest.encoding.seeds()[0]).weight_bits
    coarse = Variant(weight_bits=dict.fromkeys(paths, 2))
    judged = quest.shop.built(coarse).module.state_dict()
    delivered = quest.shop.trained(coarse, quest.training(), epochs=0, key="it")
    assert paths
    for name, tensor in delivered.module.state_dict().items():
        assert torch.equal(tensor, judged[name]), name


@pytest.mark.parametrize(
    "stage",
    [
        SearchFilters(**BRIEF, encoding="widths"),
        SearchFilters(**BRIEF, encoding="masks"),
        SearchBits(**BRIEF),
        SearchBits(**BRIEF, filters="widths"),
    ],
    ids=["widths", "masks", "bits", "bits and widths"],
)
def test_a_search_begins_at_the_original_bit_for_bit(tmp_path, stage):
    context = tiny_context(tmp_path)
    quest = stage.quest(context.original, context)
    variant = quest.encoding.express(quest.encoding.seeds()[0])
    (x,) = quest.shop.original.example(16)
    with torch.no_grad():
        whole = context.original.the_network().module(x)
        assert torch.equal(quest.shop.built(variant).module(x), whole)
        assert torch.equal(quest.shop.narrowed(variant, verify=True).module(x), whole)
    told = quest.shop.figures(variant, 24)
    assert told["loss"] == 0
    assert told["params"] == quest.shop.original.params


def test_examples_for_the_last_test_decide_nothing(tmp_path):
    context = tiny_context(tmp_path)
    spoilt = Split(np.zeros_like(context.data.test.inputs), context.data.test.targets[::-1])
    other = replace(context, data=replace(context.data, test=spoilt))
    found = []
    for each in (context, other):
        quest = SearchFilters(**BRIEF).quest(each.original, each)
        evolution = evolved(quest)
        found.append((evolution.state(), [m.genome for m in finalists(quest, evolution)]))
    assert found[0] == found[1]


def test_latency_is_measured_once_for_equal_widths(tmp_path, monkeypatch):
    from lilliput.search import searching

    asked = []

    def measured(networks, _original, _context):
        asked.extend(networks)
        return {key: float(n.params) / 3000 for key, n in networks.items()}

    monkeypatch.setattr(searching, "measured_latencies", measured)
    stage = SearchFilters(
        **BRIEF, objectives=("loss", "bytes", "latency"), algorithm="nsga3", encoding="masks"
    )
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = replace(tiny_context(tmp_path), journal=journal)
        evolution = evolved(stage.quest(context.original, context))
    assert len(asked) == len(set(asked)) <= len(evolution.archive)
    assert all(len(member.outcome.values) == 3 for member in evolution.archive.values())


def test_min_metric_is_a_limit_on_the_loss(tmp_path):
    context = tiny_context(tmp_path)
    low, high = ({**BRIEF, "max_drop": None, "min_metric": limit} for limit in (1.0, 101.0))
    quest = SearchFilters(**low).quest(context.original, context)
    whole = quest.shop.whole[24]
    for member in evolved(quest).front():
        assert member.outcome.values[0] * whole <= whole - 1.0 + 1e-9
    with pytest.raises(Refused, match=r"min_metric 101 is no limit .* the original has"):
        evolved(SearchFilters(**high).quest(context.original, context))


def test_what_is_delivered_keeps_the_limits_on_costs(tmp_path):
    context = tiny_context(tmp_path)
    whole = context.original.the_network()
    limit = 0.5 * network_macs(whole)
    stage = SearchFilters(**BRIEF, limits={"macs": limit})
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        children = list(stage.explore(context.original, replace(context, journal=journal)))
    assert children
    assert all(network_macs(child.the_network()) <= limit for child in children)
    with pytest.raises(ValidationError, match="limits"):
        SearchFilters(limits={"latency": 3.0})


def test_when_nothing_keeps_the_limit_the_nearest_climb(tmp_path):
    context = tiny_context(tmp_path)
    quest = SearchFilters(**BRIEF).quest(context.original, context)
    evolution = evolved(quest)
    evolution.archive = {
        key: replace(member, outcome=replace(member.outcome, violation=1.0))
        for key, member in evolution.archive.items()
    }
    assert not evolution.front()
    assert evolution.hypervolume() == 0
    assert finalists(quest, evolution)


def test_what_climbs_is_journalled_with_the_trust_it_deserves(tmp_path):
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = replace(tiny_context(tmp_path), journal=journal)
        quest = SearchFilters(**BRIEF).quest(context.original, context)
        children = list(explored(quest, context.original, suffix="filters"))
        results = [entry.facts.get("result", {}) for entry in journal.entries]
    rungs = [told["rung"] for told in results if "rung" in told]
    assert [len(told["rungs"]) for told in rungs] == [2, 2]
    assert all("andidates" in told["says"] for told in rungs)
    assert [child.id for child in children] == [
        f"original-filters{number}" for number in range(1, len(children) + 1)
    ]
    sizes = [child.value("params") for child in children]
    assert sizes == sorted(sizes)
    assert all(torch.isfinite(torch.tensor(child.value("proxy"))) for child in children)


def test_the_knee_is_delivered_first_and_the_near_original_last():
    goals = Goals(("loss", "bytes"), (1.0, 1.0))
    rows = [(0.0, 0.98), (0.01, 0.3), (0.02, 0.2), (0.3, 0.1), (0.4, 0.9)]
    members = [Member(n, 0, (n,), Outcome(row)) for n, row in enumerate(rows)]
    chosen = [[m.number for m in worth_delivering(members, goals, n)] for n in (1, 2, 3, 9)]
    assert chosen[0] == [2]
    assert chosen[-1] == [3, 2, 1, 0]
    assert all(set(fewer) < set(more) for fewer, more in pairwise(chosen))
    assert worth_delivering([], goals, 3) == []


def test_a_held_form_survives_the_fit(tmp_path):
    """Zeros that an earlier step made stay zeros: fitted layers are those without a form."""
    context = tiny_context(tmp_path)
    network = tiny_network().copy()
    with torch.no_grad():
        network.module.block1.conv1.weight[:, ::2] = 0
    network = replace(network, held={"block1.conv1.weight": "zeros"})
    quest = SearchFilters(**BRIEF).quest(Candidate("sparse", network=network), context)
    genome = quest.encoding.seeds()[2]
    built = quest.shop.narrowed(quest.encoding.express(genome), verify=True)
    before = set(np.unique(network.module.block1.conv1.weight.detach().numpy()))
    assert set(np.unique(built.module.block1.conv1.weight.detach().numpy())) <= before


@pytest.mark.parametrize("stage", [SearchFilters, SearchBits], ids=["filters", "bits"])
def test_files_of_delivered_networks_answer_as_the_networks_do(tmp_path, stage):
    """Identity 12 of the specification: 1e-4 at most, and the same class for 1,000 pictures."""
    context = tiny_context(tmp_path)
    pictures = np.random.default_rng(0).standard_normal((1000, 3, 8, 8)).astype(np.float32)
    for child in stage(**BRIEF).explore(context.original, context):
        network = child.the_network()
        file = export_network(network, tmp_path / f"{child.id}.onnx")
        with closing(open_session(file.path, Target())) as session:
            (theirs,) = session.run([pictures])
        with torch.no_grad():
            ours = network.module(torch.from_numpy(pictures)).numpy()
        assert np.abs(ours - theirs).max() <= 1e-4
        assert np.array_equal(ours.argmax(1), theirs.argmax(1))
