"""What genes mean, beyond the contract that all encodings keep."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.errors import Refused
from lilliput.network import Network, flat_outputs
from lilliput.prune import analyse, cut
from lilliput.prune.allocation import allocate
from lilliput.prune.importance import class_scores
from lilliput.prune.trial import zeroed
from lilliput.search.encodings.bits import Bits
from lilliput.search.encodings.masks import Masks
from lilliput.search.encodings.widths import Widths
from lilliput.search.genomes import ENCODINGS, Ground
from lilliput.testing.search_contracts import tiny_ground
from lilliput.testing.zoo import shake, zoo


def ground_of(name: str) -> Ground:
    network = zoo()[name]()
    analysis = analyse(network)
    return Ground(network, analysis, class_scores(network, analysis, "l2"))


@cache
def masks_and_bounds() -> tuple[Masks, list[tuple[int, int]]]:
    """Of the tiny network, with the places of each group's bits."""
    ground = tiny_ground()
    ends = np.cumsum([0, *(len(group.classes) for group in ground.analysis.prunable)]).tolist()
    return Masks(ground), list(itertools.pairwise(ends))


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


class Strided(nn.Module):
    """Padding, a stride, a residual sum and a flattening; activations that are not 0 at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3)
        self.inner, self.inner_norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.outer = nn.Conv2d(3, 3, 1)
        self.begun, self.within, self.joined = nn.Sigmoid(), nn.Sigmoid(), nn.Sigmoid()
        self.last = nn.Linear(3 * 9, 2)

    def forward(self, x):
        x = self.begun(self.norm(self.stem(x)))
        y = self.within(self.inner_norm(self.inner(x)))
        return self.last(self.joined(x + self.outer(y)).flatten(1))


def masked_answers(module, x, masks):
    """With what these activations give, {name: (channels,)}, switched on and off."""
    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda _part, _inputs, given, mask=mask: given * mask[:, None, None]
        )
        for name, mask in masks.items()
    ]
    answers = module(x)
    for handle in handles:
        handle.remove()
    return answers


def test_every_string_of_a_small_network_masks_what_it_cuts():
    module = Strided()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shake(module)
    network = Network(module.eval(), (TensorSpec(name="x", shape=(None, 2, 6, 6)),), "strided")
    analysis = analyse(network)
    masks = Masks(Ground(network, analysis, class_scores(network, analysis, "l1")))
    layers = {group.name: group for group in analysis.prunable}
    assert set(layers) == {"stem", "inner"}
    (x,) = network.example(2)
    strings = [s for s in itertools.product((0, 1), repeat=6) if any(s[:3]) and any(s[3:])]
    assert len(strings) == 49
    for string in strings:
        gone = masks.express(np.array(string)).gone
        kept = {
            name: torch.tensor([float(n not in gone) for n in group.classes])
            for name, group in layers.items()
        }
        smaller = cut(network, analysis, gone, verify=False).module if gone else module
        with torch.no_grad():
            stream, inside = kept["stem"], kept["inner"]
            masked = masked_answers(
                module, x, {"begun": stream, "joined": stream, "within": inside}
            )
            torch.testing.assert_close(smaller(x), masked, atol=1e-5, rtol=0)
        widths = smaller.stem.out_channels, smaller.inner.out_channels
        assert widths == (int(kept["stem"].sum()), int(kept["inner"].sum()))


@pytest.mark.parametrize("name", ["bias_without_norm", "plain"])
def test_masking_the_weights_of_a_layer_alone_is_not_cutting_it(name):
    """A channel without weights still emits its bias, or the shift of its norm."""
    ground = ground_of(name)
    group = ground.analysis.prunable[0]
    layer = next(m.layer for m in group.members if m.tensor.endswith("weight") and m.dim == 0)
    assert isinstance(ground.network.module.get_submodule(layer), nn.Conv2d)
    (inputs,) = ground.network.example(2)
    off = []
    for place, number in enumerate(group.classes):
        smaller = cut(ground.network, ground.analysis, [number], verify=False)
        twin = ground.network.copy()
        with torch.no_grad():
            twin.module.get_submodule(layer).weight[place] = 0
            off.append(float((twin.module(inputs) - smaller.module(inputs)).abs().max()))
    assert max(off) > 1e-3


REORDERED = ("plain", "residual", "inverted_residual", "flatten_linear", "concat", "u_net")


@pytest.mark.parametrize("name", REORDERED)
def test_the_order_of_channels_changes_no_answer(name):
    """So a code says as much when each group's bits are sorted."""
    ground, rng = ground_of(name), np.random.default_rng(0)
    analysis = ground.analysis
    taken = np.arange(analysis.class_count + 1)
    for group in analysis.prunable:
        taken[list(group.classes)] = rng.permutation(group.classes)
    twin = ground.network.copy()
    state = twin.module.state_dict()
    moved = 0
    for slot in analysis.slots:
        places = np.arange(slot.size)
        for number in set(slot.classes.tolist()) - {-1}:
            places[slot.classes == number] = np.flatnonzero(slot.classes == taken[number])
        if slot.tensor in state:
            order = torch.from_numpy(places)
            state[slot.tensor] = state[slot.tensor].index_select(slot.dim, order)
            moved += int((places != np.arange(slot.size)).any())
    assert moved
    twin.module.load_state_dict(state)
    gone = [number for group in analysis.prunable for number in group.classes[::3]]
    came_from = [int(taken[number]) for number in gone]
    inputs = ground.network.example(2)
    with torch.no_grad():
        pairs = [
            (ground.network, twin),
            (
                cut(ground.network, analysis, came_from, verify=False),
                cut(twin, analysis, gone, verify=False),
            ),
        ]
        for theirs, ours in pairs:
            expected = flat_outputs(theirs.module(*inputs))[0]
            found = flat_outputs(ours.module(*inputs))[0]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


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


def test_the_dearest_is_that_of_the_largest_norm():
    """Each channel's own weights stand out, so that every way to sum them agrees."""
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2))
    with torch.no_grad():
        module[0].weight.copy_(
            torch.tensor([1.0, 5.0, 2.0, 3.0]).reshape(4, 1, 1, 1).expand(4, 2, 3, 3)
        )
        module[3].weight.fill_(0.01)
    network = Network(module.eval(), (TensorSpec(name="x", shape=(None, 2, 6, 6)),), "ranked")
    analysis = analyse(network)
    masks = Masks(Ground(network, analysis, class_scores(network, analysis, "l1")))
    mended = masks.repair(np.zeros(4, np.int64))
    kept = cut(network, analysis, masks.express(mended).gone).module[0].weight
    assert torch.equal(kept, module[0].weight[1:2])


@given(st.data())
def test_only_empty_groups_are_mended_and_by_one_bit(data):
    masks, groups = masks_and_bounds()
    genome = np.array(
        data.draw(
            st.lists(st.integers(0, 1), min_size=len(masks.levels), max_size=len(masks.levels))
        )
    )
    for start, stop in groups:
        if data.draw(st.booleans()):
            genome[start:stop] = 0
    mended = masks.repair(genome)
    for start, stop in groups:
        if genome[start:stop].any():
            assert np.array_equal(mended[start:stop], genome[start:stop])
        else:
            assert mended[start:stop].sum() == 1
    assert np.array_equal(masks.repair(mended), mended)


def test_masks_of_pure_widths_are_widths():
    """The starting points of both encodings are the same sets of channels."""
    ground = tiny_ground()
    masks, widths = Masks(ground), Widths(ground)
    ours = {masks.express(genome).gone for genome in masks.seeds()}
    theirs = {widths.express(genome).gone for genome in widths.seeds()}
    assert ours == theirs


@pytest.mark.parametrize("cost", ["macs", "params"])
@pytest.mark.parametrize("encoding", [Masks, Widths])
def test_within_a_limit_evolution_begins_with_the_cut_of_prune_channels(
    encoding: type[Masks] | type[Widths], cost: str
):
    ground = tiny_ground()
    limit = 0.47 * getattr(ground.analysis, cost)()
    plan = allocate(ground.analysis, ground.scores, **{f"max_{cost}": limit})
    limited = encoding(replace(ground, limits={cost: limit}))
    gone = {limited.express(genome).gone for genome in limited.seeds()}
    assert plan.classes in gone
    assert plan.classes not in {encoding(ground).express(g).gone for g in encoding(ground).seeds()}
    impossible = encoding(replace(ground, limits={cost: 1.0, "bytes": 5.0}))
    assert len(impossible.seeds()) == len(encoding(ground).seeds())


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
