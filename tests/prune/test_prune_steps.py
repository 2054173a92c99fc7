"""The two steps: settings, refusals, and what they do with a run's data and target."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.context import Context, SilentJournal
from lilliput.data.dataset import Dataset, Split
from lilliput.errors import LilliputError, Refused
from lilliput.prune import analyse, from_context, network_macs, removable_blocks
from lilliput.steps import prune_blocks
from lilliput.steps.base import STAGES
from lilliput.steps.prune_blocks import PruneBlocks, saved_by
from lilliput.steps.prune_channels import PruneChannels
from lilliput.target import Target
from lilliput.tasks.classification import Classification
from lilliput.testing.zoo import zoo


class Notes(SilentJournal):
    def __init__(self):
        self.events = []

    def note(self, event, **facts):
        self.events.append((event, facts))


def examples(count, *, labelled=True, shape=(3, 8, 8), seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, *shape)).astype(np.float32)
    return Split(inputs, rng.integers(0, 4, count) if labelled else None)


@pytest.fixture
def context(tmp_path):
    return context_of("residual", tmp_path)


def context_of(name, folder, *, labelled=True, runtime="null", **changes):
    network = zoo()[name]()
    shape = tuple(network.inputs[0].shape[1:])
    data = Dataset(
        "random",
        train=examples(96, labelled=labelled, shape=shape),
        validation=examples(40, labelled=labelled, shape=shape, seed=1),
        layout="tensor",
    )
    return Context(
        data=data,
        task=Classification(),
        target=Target(runtime=runtime),
        original=Candidate(id="original", network=network),
        folder=folder,
        journal=Notes(),
        **changes,
    )


def original(context):
    return context.original.the_network()


def test_both_are_registered():
    assert STAGES["prune_channels"] is PruneChannels
    assert STAGES["prune_blocks"] is PruneBlocks
    assert PruneChannels(ratio=0.25, rounds=2).described() == {
        "prune_channels": {"ratio": 0.25, "rounds": 2}
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of ratio, keep_macs, .*: none is given"),
        ({"ratio": 0.5, "max_macs": 9.0}, "ratio and max_macs are both given"),
        ({"ratio": 1.5}, "less than 1"),
        ({"ratio": 0.5, "criterion": "magic"}, "'l1', 'l2'"),
        ({"ratio": 0.5, "multiple_of": 0}, "multiple_of is a positive number or auto"),
        ({"ration": 0.5}, "ration"),
    ],
)
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(ValidationError, match=message):
        PruneChannels(**settings)


@pytest.mark.parametrize(
    "criterion", ["l1", "l2", "bn_scale", "taylor", "fisher", "output", "random"]
)
def test_every_criterion_reaches_the_goal(context, criterion):
    step = PruneChannels(keep_macs=0.6, criterion=criterion, rounds=2, score_images=32)
    before = {name: t.clone() for name, t in original(context).module.state_dict().items()}
    step.requires(context.original, context)
    made = step.apply(context.original, context).the_network()
    assert network_macs(made) <= 0.6 * network_macs(original(context))
    after = original(context).module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    cuts = [facts for event, facts in context.journal.events if event == "channels cut"]
    assert [facts["round"] for facts in cuts] == [1, 2]
    assert cuts[-1]["macs"] == network_macs(made)


@pytest.mark.parametrize("criterion", ["l2", "taylor", "output", "random"])
def test_the_same_seed_gives_the_same_bits(context, criterion):
    step = PruneChannels(ratio=0.3, criterion=criterion)
    one, two = (step.shrink(original(context), context).module.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        ({"max_macs": 15_000}, lambda net: network_macs(net) <= 15_000),
        ({"max_params": 600}, lambda net: net.params <= 600),
        ({"ratio": 0.5}, lambda net: net.module[0][0].out_channels == 4),
    ],
)
def test_goals(tmp_path, goal, reached):
    context = context_of("plain", tmp_path)
    assert not reached(original(context))
    made = PruneChannels(scope="local", **goal).shrink(original(context), context)
    assert reached(made)
    assert made.params < original(context).params


def test_statistics_come_from_training_examples(context):
    kept = PruneChannels(ratio=0.2, bn_images=0).shrink(original(context), context)
    fresh = PruneChannels(ratio=0.2, bn_images=64).shrink(original(context), context)
    name = next(n for n in kept.module.state_dict() if n.endswith("running_mean"))
    assert not torch.equal(kept.module.state_dict()[name], fresh.module.state_dict()[name])
    one = dict(kept.module.named_parameters())
    assert all(torch.equal(one[n], p) for n, p in fresh.module.named_parameters())


def test_widths_become_multiples(tmp_path):
    context = context_of("plain", tmp_path)
    made = PruneChannels(ratio=0.4, multiple_of=4).shrink(original(context), context)
    assert {len(layer.outputs) % 4 for layer in analyse(made).layers} == {0}


def test_the_measured_grid_of_the_target_is_used(tmp_path, monkeypatch):
    import lilliput.meter.widths as widths

    class Profile:
        asked: ClassVar[list[str]] = []

        def round(self, width, kind):
            self.asked.append(kind)
            return -(-width // 6) * 6

    monkeypatch.setattr(widths, "width_profile", lambda target: Profile())
    context = context_of("plain", tmp_path, runtime="onnxruntime")
    made = PruneChannels(ratio=0.4).shrink(original(context), context)
    outputs = {layer.path: len(layer.outputs) for layer in analyse(made).layers}
    assert outputs["0.0"] in (6, 8)  # on the grid, or whole
    assert outputs["2.0"] in (6, 12)
    assert outputs["0.0"] + outputs["2.0"] < 20
    assert set(Profile.asked) == {"conv3x3"}


def test_a_target_that_cannot_be_profiled_gets_multiples_of_four(tmp_path, monkeypatch):
    import lilliput.meter.widths as widths

    def fails(target):
        raise LilliputError("no such device")

    monkeypatch.setattr(widths, "width_profile", fails)
    context = context_of("plain", tmp_path, runtime="onnxruntime")
    round_width = from_context.grid(context, "auto")
    assert round_width(5, "conv3x3") == 8
    assert context.journal.events[-1] == (
        "no width profile",
        {"why": "no such device", "instead": "multiples of 4"},
    )


def test_gradients_without_labels_are_refused_before_anything_runs(tmp_path):
    context = context_of("plain", tmp_path, labelled=False)
    step = PruneChannels(ratio=0.5, criterion="taylor")
    with pytest.raises(Refused, match=r"'taylor' needs labels(.|\n)*criterion: output"):
        step.requires(context.original, context)
    PruneChannels(ratio=0.5).requires(context.original, context)


def test_a_typo_in_protect_is_refused_before_anything_runs(context):  # users-ask 25
    step = PruneChannels(ratio=0.5, protect=("3.liner",))
    with pytest.raises(Refused, match=r"matches '3\.liner'\n.*'3\.linear'"):
        step.requires(context.original, context)


def test_a_file_is_no_network(context, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"")
    artifact = Artifact(path=path, format="onnx", bytes=0, sha256="")
    candidate = Candidate(id="file", artifact=artifact)
    for step in (PruneChannels(ratio=0.5), PruneBlocks(count=1)):
        with pytest.raises(Refused, match="works on a torch network"):
            step.requires(candidate, context)


def test_super_resolution_keeps_its_colours(tmp_path):  # users-ask 40
    context = context_of("pixel_shuffle", tmp_path)
    network = original(context)
    made = PruneChannels(ratio=0.5, bn_images=0).shrink(network, context)
    x = network.example(2)[0]
    assert made.module(x).shape == network.module(x).shape == (2, 3, 32, 32)
    assert len(made.module[2].weight) % 4 == 0
    assert len(made.module[2].weight) < 24


def test_milliseconds_are_the_ratio_to_the_original_times_its_usual_time(context, monkeypatch):
    import lilliput.search.probe as probing

    drift = iter([1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])

    class Price:
        def __init__(self, float_ms):
            self.float_ms = float_ms

    def probe(networks, original, context):
        slow = next(drift)
        return {k: Price(slow * network_macs(n) / 1e4) for k, n in networks.items()}

    monkeypatch.setattr(probing, "probe", probe)
    whole = network_macs(original(context))
    limit = 0.6 * whole / 1e4
    made = PruneChannels(max_latency_ms=limit).shrink(original(context), context)
    tried = [f["ms"] for event, f in context.journal.events if event == "latency tried"]
    assert network_macs(made) / 1e4 <= limit
    assert tried[1] <= whole / 1e4 * 2


# blocks


@pytest.mark.parametrize("settings", [{}, {"remove": ("2.0",), "count": 1}, {"count": 0}])
def test_blocks_are_named_or_counted(settings):
    with pytest.raises(ValidationError):
        PruneBlocks(**settings)


def test_named_blocks_go(context):
    step = PruneBlocks(remove=("2.0", "2.2"))
    step.requires(context.original, context)
    made = step.apply(context.original, context).the_network()
    assert [isinstance(block, nn.Identity) for block in made.module[2]] == [True, False, True]
    assert ("blocks removed", {"paths": ["2.0", "2.2"]}) in context.journal.events


def test_unknown_blocks_and_too_many_are_refused(context, tmp_path):
    with pytest.raises(Refused, match=r"'2\.7' is no block that can go\n.*'2\.\d'"):
        PruneBlocks(remove=("2.7",)).requires(context.original, context)
    with pytest.raises(Refused, match=r"4 blocks cannot go: 'residual' has 3(.|\n)*2\.0, 2\.1"):
        PruneBlocks(count=4).requires(context.original, context)
    plain = context_of("plain", tmp_path)
    with pytest.raises(Refused, match=r"'plain' has 0(.|\n)*use prune_channels"):
        PruneBlocks(count=1).requires(plain.original, plain)


@pytest.mark.parametrize("labelled", [True, False])
def test_blocks_are_chosen_by_what_they_save_and_cost(tmp_path, monkeypatch, labelled):
    context = context_of("residual", tmp_path, labelled=labelled)
    # the middle block does next to nothing
    with torch.no_grad():
        original(context).module[2][1].two[1].weight.mul_(1e-3)
        original(context).module[2][1].two[1].bias.mul_(1e-3)
        if labelled:
            judging = context.data.validation
            outputs = original(context).module(torch.from_numpy(judging.inputs))
            right = replace(judging, targets=outputs.argmax(1).numpy())
            context = replace(context, data=replace(context.data, validation=right))
    monkeypatch.setattr(prune_blocks, "saved_by", lambda n, blocks, c: dict.fromkeys(blocks, 1.0))
    made = PruneBlocks(count=1, bn_images=0).apply(context.original, context).the_network()
    assert list(removable_blocks(made)) == ["2.0", "2.2"]
    two = PruneBlocks(count=2, bn_images=0).apply(context.original, context).the_network()
    assert len(removable_blocks(two)) == 1


def test_a_block_that_saves_no_time_stays(tmp_path, monkeypatch):
    context = context_of("residual", tmp_path)
    saved = {"2.0": 0.0, "2.1": 0.0, "2.2": 0.5}
    monkeypatch.setattr(prune_blocks, "saved_by", lambda n, blocks, c: saved)
    made = PruneBlocks(count=1).apply(context.original, context).the_network()
    assert list(removable_blocks(made)) == ["2.0", "2.1"]


def test_time_saved_is_measured_on_the_files(tmp_path, monkeypatch):
    import lilliput.search.probe as probing

    class Price:
        def __init__(self, best_ms):
            self.best_ms = best_ms

    monkeypatch.setattr(
        probing,
        "probe",
        lambda networks, original, context: {
            k: Price(network_macs(n) / 1e6) for k, n in networks.items()
        },
    )
    context = context_of("residual", tmp_path)
    blocks = removable_blocks(original(context))
    saved = saved_by(original(context), blocks, context)
    assert saved == pytest.approx({path: block.macs / 1e6 for path, block in blocks.items()})
    assert context.journal.events[-1] == ("block latency", {"saved_ms": saved})


def test_where_latency_cannot_be_measured_multiply_adds_stand_in(tmp_path):
    context = context_of("residual", tmp_path, runtime="nowhere")
    network = original(context)
    blocks = removable_blocks(network)
    saved = saved_by(network, blocks, context)
    assert saved == {path: float(block.macs) for path, block in blocks.items()}
    assert context.journal.events[-1][0] == "block latency not measured"
    assert context.journal.events[-1][1]["instead"] == "multiply-adds saved"
