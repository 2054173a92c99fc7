"""The running form: equal to the spatial layer, its energies exact, its choice by measurement."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import SilentJournal
from lilliput.data.sources import load_data
from lilliput.errors import LilliputError, Refused
from lilliput.export.onnx_file import export_network
from lilliput.frequency.running import (
    FrequencyConv2d,
    basis_for,
    can_run,
    energies,
    ranked,
    running_form,
    strongest,
)
from lilliput.models.store import load_saved, save_network
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.prune import network_macs
from lilliput.prune.edits import frequency_edit, replay
from lilliput.recipe.stages import build_stages
from lilliput.search.running import timed_within
from lilliput.steps.run_dct import RunDct, inputs_of, with_forms
from lilliput.target import Target
from lilliput.tasks import task_of
from lilliput.testing.tiny import TinyResidual, tiny_context
from lilliput.testing.zoo import shake


def convolution(side=5, **settings) -> nn.Conv2d:
    torch.manual_seed(side)
    return nn.Conv2d(3, 6, side, **settings)


@pytest.mark.parametrize("basis", ["dct", "svd", "identity"])
@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize(
    "settings",
    [{}, {"padding": 2, "dilation": 2, "bias": False}, {"padding": "same"}],
    ids=str,
)
def test_with_all_pictures_it_is_the_spatial_layer(basis, side, settings):
    layer = convolution(side, **settings)
    form = running_form(layer, basis_for(layer, basis), range(side * side))
    x = torch.randn(2, 3, 17, 19)
    torch.testing.assert_close(form(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_it_takes_the_steps_of_the_spatial_layer(stride, padding, dilation):
    for side in (3, 5, 7):
        layer = convolution(side, stride=stride, padding=padding, dilation=dilation)
        form = running_form(layer, basis_for(layer, "dct"), range(side * side))
        x = torch.randn(2, 3, 15, 18)
        torch.testing.assert_close(form(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "outputs", "side", "count", "ratio"),
    [
        (16, 16, 3, 4, 1.44),
        (16, 16, 3, 6, 0.96),
        (64, 64, 3, 4, 1.97),
        (64, 64, 3, 6, 1.32),
        (20, 50, 5, 10, 1.67),
    ],
)
def test_products_saved_are_those_that_the_specification_derives(
    inputs, outputs, side, count, ratio
):
    layer = nn.Conv2d(inputs, outputs, side, padding=side // 2)
    spec = (TensorSpec(name="x", shape=(1, inputs, 8, 8)),)
    whole, fewer = (
        network_macs(Network(nn.Sequential(part), spec))
        for part in (layer, FrequencyConv2d(layer, count))
    )
    assert whole / fewer == pytest.approx(ratio, abs=0.006)


def test_the_file_answers_as_torch_does_with_the_norm_in_the_mixture(tmp_path):
    layer = convolution(stride=2, padding=2)
    form = running_form(layer, basis_for(layer, "dct"), [0, 1, 5, 6])
    module = nn.Sequential(form, nn.BatchNorm2d(6), nn.ReLU())
    shake(module)
    network = Network(module.eval(), (TensorSpec(name="x", shape=(None, 3, 12, 12)),))
    path = export_network(network, tmp_path / "n.onnx").path
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Conv") == 2
    assert "BatchNormalization" not in kinds
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (x,) = network.example(5)
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected, atol=1e-4)


def test_kernels_need_not_be_square():
    layer = nn.Conv2d(2, 3, (3, 5), padding=(1, 2))
    form = running_form(layer, basis_for(layer, "dct"), range(15))
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(form(x), layer(x), atol=1e-5, rtol=1e-5)


def test_a_dropped_picture_changes_the_weights_by_its_energy():
    layer = convolution()
    basis = basis_for(layer, "dct")
    kept = [j for j in range(25) if j != 7]
    form = running_form(layer, basis, kept)
    mixture = form.mix.weight.detach().reshape(6, 24, 3).transpose(1, 2).numpy()
    weight = layer.weight.detach().numpy()
    lost = ((mixture @ basis[kept]).reshape(weight.shape) - weight) ** 2
    gone = (weight.reshape(-1, 25) @ basis[7]) ** 2
    assert lost.sum() == pytest.approx(gone.sum(), rel=1e-4)


def test_energy_is_the_power_that_each_picture_adds_to_uncorrelated_outputs():
    layer = nn.Conv2d(1, 4, 3, bias=False)
    x = torch.randn(8, 1, 12, 12)
    basis = basis_for(layer, "dct")
    found = energies(layer, basis, x)
    for j in range(9):
        alone = running_form(layer, basis, [j])
        power = float(alone(x).detach().square().mean((0, 2, 3)).sum())
        assert found[j] == pytest.approx(power, rel=1e-4)


def test_the_fewest_strongest_pictures_are_kept_and_low_frequencies_of_equals():
    energy = np.array([1.0, 8.0, 1.0, 0.0])
    assert strongest(energy, 0.7, (2, 2)) == [1]
    assert strongest(energy, 0.85, (2, 2)) == [1, 0]
    assert strongest(energy, 1.0, (2, 2)) == [1, 0, 2]
    assert strongest(np.ones(9), 1.0, (3, 3)) == [0, 1, 3, 2, 4, 6, 5, 7, 8]


def test_what_has_no_such_form():
    assert can_run(convolution())
    assert not can_run(nn.Conv2d(4, 4, 1))
    assert not can_run(nn.Conv2d(4, 4, 3, groups=4))
    assert not can_run(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))
    assert not can_run(nn.Linear(4, 4))

    class Standardized(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return self._conv_forward(x, weight, self.bias)

    assert not can_run(Standardized(4, 4, 3)), "it computes something else"


def test_inputs_of_a_layer_on_several_sizes_are_those_of_the_largest(tmp_path):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(x).mean((2, 3)) + self.conv(x[:, :, ::2, ::2]).mean((2, 3))

    context = tiny_context(tmp_path)
    given = replace(context.original.the_network(), module=Head().eval())
    found = inputs_of(given, ("conv",), context, 16)["conv"]
    assert found.shape[1:] == given.inputs[0].shape[1:]
    assert len(found) >= 16


def test_the_change_is_replayed_and_the_pictures_are_held(tmp_path):
    context = tiny_context(tmp_path)
    step = RunDct(layers=("block1.conv1", "stem"), keep=4, epochs=1, batch_size=32)
    made = step.apply(Candidate("x", network=context.original.the_network()), context)
    network = made.the_network()
    assert [edit["path"] for edit in json.loads(json.dumps(network.edits))] == [
        "stem",
        "block1.conv1",
    ]
    again = load_saved(save_network(network, tmp_path / "n.safetensors"), TinyResidual())
    x = network.example(2)[0]
    assert torch.equal(again.module(x), network.module(x))
    assert again.held == {"stem.bases.weight": "fixed", "block1.conv1.bases.weight": "fixed"}
    pictures = network.module.stem.bases.weight.detach().reshape(4, 3, 9)
    assert torch.equal(pictures, pictures[:, :1].expand(-1, 3, -1))
    free = step.model_copy(update={"free": True})
    other = free.apply(Candidate("x", network=context.original.the_network()), context)
    assert other.the_network().held == {}


def test_only_what_is_measured_faster_changes(tmp_path, monkeypatch):
    context = tiny_context(tmp_path)

    def scripted(changed, network, context):
        verdicts = {"stem": "slower", "block1.conv1": "faster"}
        return {p: SimpleNamespace(verdict=verdicts.get(p, "even"), ratio=0.9) for p in changed}

    monkeypatch.setattr("lilliput.steps.run_dct.timed_within", scripted)
    given = Candidate("x", network=context.original.the_network())
    made = RunDct(keep=4, epochs=0).apply(given, context)
    assert [edit["path"] for edit in made.the_network().edits] == ["block1.conv1"]
    monkeypatch.setattr(
        "lilliput.steps.run_dct.timed_within",
        lambda changed, *_: {p: SimpleNamespace(verdict="slower", ratio=1.2) for p in changed},
    )
    same = RunDct(keep=4, epochs=0).apply(given, context)
    assert same.the_network().edits == ()
    assert same.labels == ("no layer is faster in the frequency domain",)


def test_the_stopwatch_times_each_form_within_its_network(tmp_path, monkeypatch):
    monkeypatch.setattr("lilliput.search.running.SECONDS_EACH", 0.5)
    context = tiny_context(tmp_path)
    layer = nn.Conv2d(16, 16, 7, padding=3)
    module = nn.Sequential(nn.Conv2d(3, 16, 1), layer, nn.ReLU()).eval()
    network = Network(module, (TensorSpec(name="x", shape=(1, 3, 8, 8)),))
    form = running_form(layer, basis_for(layer, "dct"), [0, 1, 7])
    timings = timed_within({"1": with_forms(network, {"1": form})}, network, context)
    assert timings["1"].ratio > 0


class Digits(nn.Module):
    """5×5 layers of 1 → 16 → 32 → 32 channels on (N, 1, 8, 8); ten classes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 5, padding=2)
        self.middle = nn.Conv2d(16, 32, 5, padding=2)
        self.last = nn.Conv2d(32, 32, 5, padding=2)
        self.classify = nn.Linear(32, 10)

    def forward(self, x):
        for layer in (self.stem, self.middle, self.last):
            x = torch.relu(layer(x))
        return self.classify(x.mean((2, 3)))


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A context of digits and that network; layers are timed for a part of the usual seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("lilliput.meter.pattern_times.SECONDS", 0.5)
    monkeypatch.setattr("lilliput.meter.pattern_times.MOST_COUNTS", 5)
    monkeypatch.setattr("lilliput.search.pattern_counts.SECONDS", 0.5)
    monkeypatch.setattr("lilliput.search.running.SECONDS_EACH", 0.5)
    torch.manual_seed(0)
    spec, how = (TensorSpec(name="x", shape=(None, 1, 8, 8)),), Preprocessing(channels=1)
    original = Candidate("original", network=Network(Digits().eval(), spec, "digits", how))
    data = load_data("digits", task=task_of("classification"))
    return tiny_context(tmp_path, data=data, original=original, journal=Notes())


class Notes(SilentJournal):
    """Keeps what was noted."""

    def __init__(self):
        self.notes = []

    def note(self, event, /, **facts):
        self.notes.append((event, facts))


def test_a_goal_in_time_is_kept_by_the_network(digits):
    step = RunDct(keep_latency=0.75, epochs=0, images=64, bn_images=0)
    step.requires(digits.original, digits)
    made = step.apply(digits.original, digits).the_network()
    network = digits.original.the_network()
    assert {edit["path"] for edit in made.edits} & {"middle", "last"}
    # Timed anew; this machine has other work, so that the slack is wide.
    assert timed_within({"made": made}, network, digits)["made"].ratio < 0.9
    found = {facts["layer"]: facts for event, facts in digits.journal.notes if event == "bases"}
    assert set(found) == {"stem", "middle", "last"}
    for edit in made.edits:
        facts = found[edit["path"]]
        assert len(facts["kept"]) == edit["count"] < facts["of"] == 25
        assert 0 < facts["energy"] <= 1
        assert facts["ratio"] > 0


def test_a_looser_goal_keeps_more(digits, monkeypatch):
    """On written times, a network's being those of its layers: the step has no other freedom."""
    linear = {m: 0.1 + 0.08 * m for m in range(1, 18)}
    shares = {"stem": 0.1, "middle": 0.3, "last": 0.5}
    monkeypatch.setattr(
        "lilliput.steps.run_dct.ratios_of", lambda places, _: dict.fromkeys(places, linear)
    )
    monkeypatch.setattr("lilliput.search.pattern_counts.shares_of", lambda *_: shares)

    def added_up(changed, *_):
        ((name, network),) = changed.items()
        took = 1.0 - sum(shares[e["path"]] * (1 - linear[e["count"]]) for e in network.edits)
        return {name: SimpleNamespace(ratio=took, ratio_interval=(took, took))}

    monkeypatch.setattr("lilliput.search.pattern_counts.timed_within", added_up)
    energy = []
    for goal in (0.3, 0.5, 0.7, 0.9):
        digits.journal.notes.clear()
        made = RunDct(keep_latency=goal, epochs=0, images=64, bn_images=0).apply(
            digits.original, digits
        )
        ratio = added_up({"": made.the_network()})[""].ratio
        assert goal - 0.05 < ratio <= goal
        energy.append(sum(facts["energy"] for _, facts in digits.journal.notes))
    assert energy == sorted(energy)
    assert energy[0] < energy[-1]
    with pytest.raises(Refused, match=r"'digits' to 0.1 of its latency: 0.262 is the least(.|\n)*"):
        RunDct(keep_latency=0.1, epochs=0, images=64, bn_images=0).apply(digits.original, digits)


def test_patterns_that_cost_no_time_are_kept_as_well(digits, monkeypatch):
    stairs = {m: 0.2 * -(-m // 4) for m in range(1, 18)}
    monkeypatch.setattr(
        "lilliput.steps.run_dct.ratios_of", lambda places, _: dict.fromkeys(places, stairs)
    )
    step = RunDct(energy=0.5, layers=("middle", "last"), epochs=0, images=64, bn_images=0)
    made = step.apply(digits.original, digits).the_network()
    kept = {edit["path"]: edit["count"] for edit in made.edits}
    assert set(kept) == {"middle", "last"}
    assert all(count % 4 == 0 for count in kept.values())
    exact = step.model_copy(update={"energy": None, "keep": 3})
    made = exact.apply(digits.original, digits).the_network()
    assert [edit["count"] for edit in made.edits] == [3, 3]


def test_two_goals_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"one of energy, keep_latency, keep: energy and keep_lat"):
        RunDct(energy=0.9, keep_latency=0.7)
    _, mistakes = build_stages([{"run_dct": {"keep": 3, "keep_latency": 0.7}}])
    assert "keep_latency and keep are both given" in str(mistakes[0][1])
    for alone in ({}, {"energy": 0.965}, {"keep": 2}, {"keep_latency": 0.7}):
        RunDct(**alone)


def test_a_goal_in_time_needs_a_target_that_tells_times(tmp_path):
    context = tiny_context(tmp_path, target=Target(runtime="reference"))
    with pytest.raises(Refused, match=r"times on 'reference' say nothing(.|\n)*give `energy`"):
        RunDct(keep_latency=0.7).requires(context.original, context)


def test_a_rank_says_what_the_first_patterns_carry():
    layer, inputs = convolution(3), torch.randn(4, 3, 8, 8)
    order = ranked(layer, "dct", inputs)
    assert order.carried == sorted(order.carried)
    assert order.carried[-1] == pytest.approx(1.0)
    energy = energies(layer, order.basis, inputs)
    for share in (0.3, 0.8, 0.99, 1.0):
        assert order.order[: order.fewest(share)] == strongest(energy, share, (3, 3))
    silent = ranked(layer, "dct", torch.zeros(4, 3, 8, 8))
    assert (silent.order, silent.carried, silent.fewest(0.9)) == ([0], [1.0], 1)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (frequency_edit("stem", 10), "'stem' has 9 bases, and the edit keeps 10"),
        (frequency_edit("stem", 0), "'stem' has 9 bases, and the edit keeps 0"),
        (frequency_edit("bn", 3), "'bn' is no convolution that has a form"),
        (frequency_edit("stm", 3), "the network has no module 'stm'"),
    ],
)
def test_damaged_edits_are_refused(edit, message):
    with pytest.raises(LilliputError, match=message):
        replay(TinyResidual(), [edit])


def test_a_network_without_such_layers_is_refused(tmp_path):
    context = tiny_context(tmp_path)
    spec = (TensorSpec(name="x", shape=(None, 3, 8, 8)),)
    plain = Network(nn.Sequential(nn.Conv2d(3, 4, 1)), spec, "pointwise")
    with pytest.raises(Refused, match=r"no convolution to change in 'pointwise'\n.*larger than 1"):
        RunDct().requires(Candidate("p", network=plain), context)
    unlabelled = replace(context.data, train=replace(context.data.train, targets=None))
    artifact_only = replace(context, data=unlabelled, original=_file(tmp_path, context))
    with pytest.raises(Refused, match=r"nothing to learn from(.|\n)*epochs: 0"):
        RunDct().requires(context.original, artifact_only)


def _file(folder, context):
    path = folder / "original.onnx"
    return Candidate("original", artifact=export_network(context.original.the_network(), path))


def test_the_form_is_what_its_settings_say():
    form = FrequencyConv2d(convolution(stride=2, padding=2), 3)
    assert form(torch.zeros(1, 3, 8, 8)).shape == (1, 6, 4, 4)
    assert form.bases.weight.shape == (9, 1, 5, 5)
    assert form.mix.weight.shape == (6, 9, 1, 1)
