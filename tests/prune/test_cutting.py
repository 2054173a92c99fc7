"""Cuts that must be refused, and edits that must not be believed."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lilliput.errors import LilliputError, Refused, VerificationFailed
from lilliput.prune import CutDiffers, analyse, cut, remove, replay
from lilliput.testing.zoo import zoo


def test_a_frozen_channel_cannot_be_cut():
    network = zoo()["group_norm"]()
    analysis = analyse(network)
    frozen = next(group for group in analysis.groups if group.name == "0")
    with pytest.raises(LilliputError, match=r"channels of .0. cannot go: 1 .native_group_norm"):
        cut(network, analysis, frozen.frozen[:1])


def test_unknown_classes_and_empty_layers_are_refused():
    network = zoo()["plain"]()
    analysis = analyse(network)
    with pytest.raises(LilliputError, match="no class 4711 in this analysis"):
        cut(network, analysis, [4711])
    with pytest.raises(LilliputError, match=r"leave '0\.0\.weight' without any index"):
        cut(network, analysis, analysis.prunable[0].classes)


def test_cutting_nothing_gives_the_network_itself():
    network = zoo()["plain"]()
    assert cut(network, analyse(network), []) is network


@pytest.mark.parametrize(
    ("name", "group", "message"),
    [
        ("hard_view", "last.0", "does not run"),
        ("rotated_channels", "stem.0", "differs by .* from the one with the same channels zeroed"),
    ],
)
def test_an_unproven_coupling_is_caught_after_the_cut(name, group, message):
    network = zoo()[name]()
    believed = analyse(network, prove=False)
    classes = [g.classes[0] for g in believed.prunable]
    with pytest.raises(CutDiffers, match=f"network cut in '{group}' {message}") as caught:
        cut(network, believed, classes)
    assert [g.name for g in caught.value.groups] == [group]
    assert isinstance(caught.value, VerificationFailed)
    assert "protect" in str(caught.value)
    cut(network, believed, classes, verify=False)


def test_edits_go_to_json_and_back():
    network = zoo()["residual"]()
    analysis = analyse(network)
    smaller = remove(cut(network, analysis, analysis.prunable[1].classes[:3]), "2.1")
    edits = json.loads(json.dumps(smaller.edits))
    fresh = replay(zoo()["residual"]().module, edits)
    fresh.load_state_dict(smaller.module.state_dict())
    x = network.example(2)[0]
    assert torch.equal(fresh(x), smaller.module(x))
    assert isinstance(fresh[2][1], nn.Identity)


def cut_entry(**changes):
    entry = {"tensor": "0.0.weight", "dim": 0, "of": 8, "indices": [1, 2]} | changes
    return [{"edit": "cut_channels", "removed": [entry]}]


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([{"edit": "cut_chanels"}], "edit 1: no edit 'cut_chanels'\n.*'cut_channels'"),
        ([{"edit": "remove_block", "path": "2.9"}], "edit 1: the network has no module '2.9'"),
        ([{"edit": "remove_block", "path": ""}], "the network has no module ''"),
        (cut_entry(tensor="9.weight"), "the network has no tensor '9.weight'\n.*another class"),
        (cut_entry(tensor="0.0.nothing"), "no tensor '0.0.nothing'"),
        (cut_entry(of=16), r"has shape \(8, 3, 3, 3\), and the edit expects 16 in dimension 0"),
        (cut_entry(dim=7), "expects 8 in dimension 7"),
        (cut_entry(dim=-1), "malformed removal"),
        (cut_entry(indices=[2, 1]), "malformed removal"),
        (cut_entry(indices=[-1]), "malformed removal"),
        (cut_entry(indices=list(range(8))), "malformed removal"),
        (cut_entry(indices="all"), "malformed removal"),
        (cut_entry(indices=[8]), "expects 8 in dimension 0"),
    ],
)
def test_damaged_edits_are_refused(edits, message):
    with pytest.raises(LilliputError, match=f"(?s){message}"):
        replay(zoo()["plain"]().module, edits)


def test_a_missing_block_is_refused_with_the_nearest_names():
    network = zoo()["residual"]()
    with pytest.raises(Refused, match=r"no block '2\.3'(.|\n)*did you mean '2\.\d'"):
        remove(network, "2.3")
    with pytest.raises(Refused, match=r"shapes without '0'(.|\n)*2\.0, 2\.1, 2\.2"):
        remove(network, "0")
