"""What genes mean, beyond the contract that all encodings keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lilliput.errors import Refused
from lilliput.network import flat_outputs
from lilliput.prune import analyse, cut
from lilliput.prune.importance import class_scores
from lilliput.prune.trial import zeroed
from lilliput.search.encodings.bits import Bits
from lilliput.search.encodings.masks import Masks
from lilliput.search.encodings.widths import Widths
from lilliput.search.genomes import ENCODINGS, Ground
from lilliput.testing.search_contracts import tiny_ground
from lilliput.testing.zoo import zoo


def ground_of(name: str) -> Ground:
    network = zoo()[name]()
    analysis = analyse(network)
    return Ground(network, analysis, class_scores(network, analysis, "l2"))


NETWORKS = ("plain", "residual", "zero_padded_shortcut", "depthwise_separable", "concat", "grouped")


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_is_cut_for_random_strings(name):
    ground = ground_of(name)
    masks, rng = Masks(ground), np.random.default_rng(0)
    one_each = masks.repair(np.zeros_like(masks.levels))
    inputs = ground.network.example(2)
    for genome in [one_each, *(masks.sample(rng) for _ in range(3))]:
        gone = masks.express(genome).gone
        smaller = cut(ground.network, ground.analysis, gone, verify=False)
        twin = ground.network.copy()
        with torch.no_grad(), zeroed(twin.module, ground.analysis, gone):
            expected = flat_outputs(twin.module(*inputs))[0]
            ours = flat_outputs(smaller.module(*inputs))[0]
        scale = max(float(expected.abs().max()), 1e-6)
        assert float((ours - expected).abs().max()) / scale < 1e-5
        assert smaller.params == ground.analysis.params(gone)


def test_masking_the_weights_of_a_layer_alone_is_not_cutting_it():
    """A channel without weights still emits its bias, or the shift of its norm."""
    ground = ground_of("bias_without_norm")
    group = ground.analysis.prunable[0]
    layer = next(m.layer for m in group.members if m.tensor.endswith("weight") and m.dim == 0)
    smaller = cut(ground.network, ground.analysis, group.classes[:1], verify=False)
    twin = ground.network.copy()
    (inputs,) = ground.network.example(2)
    with torch.no_grad():
        twin.module.get_submodule(layer).weight[:1] = 0
        ours, theirs = twin.module(inputs), smaller.module(inputs)
    assert not torch.allclose(ours, theirs, atol=1e-4)


def test_all_ones_is_the_network_itself_bit_for_bit():
    ground = tiny_ground()
    for encoding in (Masks(ground), Widths(ground)):
        variant = encoding.express(encoding.seeds()[0])
        assert variant.gone == ()
    assert cut(ground.network, ground.analysis, ()).module is ground.network.module


def test_an_empty_group_gets_its_dearest_channel_and_no_other():
    ground = tiny_ground()
    masks = Masks(ground)
    mended = masks.repair(np.zeros_like(masks.levels))
    gone = set(masks.express(mended).gone)
    for group in ground.analysis.prunable:
        left = [number for number in group.classes if number not in gone]
        assert left == [max(group.classes, key=lambda n: (ground.scores[n], -n))]


def test_masks_of_pure_widths_are_widths():
    """The starting points of both encodings are the same sets of channels."""
    ground = tiny_ground()
    masks, widths = Masks(ground), Widths(ground)
    ours = {masks.express(genome).gone for genome in masks.seeds()}
    theirs = {widths.express(genome).gone for genome in widths.seeds()}
    assert ours == theirs


def test_widths_keep_to_their_grid():
    ground = replace(tiny_ground(), multiple_of=4)
    widths, rng = Widths(ground), np.random.default_rng(0)
    for _ in range(20):
        kept = widths.describe(widths.sample(rng))["kept"]
        assert all(count % 4 == 0 for count in kept.values())


def test_protected_channels_and_layers_stay():
    ground = tiny_ground()
    group = ground.analysis.prunable[0]
    safe = replace(ground, protected=frozenset(group.classes), fixed=frozenset({"stem"}))
    rng = np.random.default_rng(0)
    for encoding in (Masks(safe), Widths(safe)):
        for _ in range(5):
            assert not set(encoding.express(encoding.sample(rng)).gone) & set(group.classes)
    assert "stem" not in Bits(safe).express(Bits(safe).sample(rng)).weight_bits


def test_nothing_to_search_is_refused_with_a_way_out():
    ground = tiny_ground()
    everything = frozenset(range(ground.analysis.class_count))
    for kind in (Masks, Widths):
        with pytest.raises(Refused, match="no channel of 'tiny' may go") as refused:
            kind(replace(ground, protected=everything))
        assert "protect fewer" in str(refused.value)
    paths = frozenset(layer.path for layer in ground.analysis.layers)
    with pytest.raises(Refused, match="no layer of 'tiny' may have fewer bits"):
        Bits(replace(ground, fixed=paths))


def test_bits_begin_with_untouched_weights_and_name_every_layer():
    ground = tiny_ground()
    bits = Bits(replace(ground, bits=(4, 8), activations=True))
    variant = bits.express(bits.seeds()[0])
    layers = [layer.path for layer in ground.analysis.layers]
    assert dict(variant.weight_bits) == dict.fromkeys(layers, 32)
    assert dict(variant.activation_bits) == dict.fromkeys(layers, 32)
    found = bits.express(bits.sample(np.random.default_rng(0)))
    assert {*found.weight_bits.values(), *found.activation_bits.values()} <= {4, 8, 32}


def test_joined_encodings_change_channels_and_bits_at_once():
    joint = ENCODINGS["widths+bits"](tiny_ground())
    variants = [joint.express(genome) for genome in joint.seeds()]
    assert variants[0].gone == ()
    assert set(variants[0].weight_bits.values()) == {32}
    assert any(v.gone and set(v.weight_bits.values()) == {32} for v in variants)
    assert any(not v.gone and set(v.weight_bits.values()) == {2} for v in variants)
    assert any(v.gone and set(v.weight_bits.values()) != {32} for v in variants)
