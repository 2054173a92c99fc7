"""Every network of the zoo is cut exactly, or says why it is not. # users-ask 18"""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lilliput.network import Network, flat_outputs
from lilliput.prune.analysis import Analysis
from lilliput.prune.cost import network_macs
from lilliput.prune.cutting import cut
from lilliput.prune.edits import replay
from lilliput.prune.groups import analyse
from lilliput.testing.zoo import zoo

NORM = "it normalises over all channels together"
WIDTH = "attention divides by the square root of its width"
CONSTANT = "the code seems to hold the number of channels as a constant"

# name → (groups that can be cut, as "layer free/width"; groups frozen for another reason than being
# the network's input or output → a part of that reason). Checked by hand once.
EXPECTED: dict[str, tuple[str, dict[str, str]]] = {
    "attention": ("embed 8/8, attention.q 6/6, attention.v 6/6", {}),
    "attention_of_width": (
        "embed 8/8, attention.v 6/6",
        {
            "attention.q": f"attention.q (view): {CONSTANT}",
        },
    ),
    "multihead_attention": (
        "wide 12/12",
        {
            "attention": WIDTH,
        },
    ),
    "transformer": (
        "blocks.0.wide 12/12, blocks.1.wide 12/12",
        {
            "patches": f"blocks.0.norm1 (native_layer_norm): {NORM}",
            "token (inputs)": "blocks.0.qkv (view): two dimensions of channels are merged",
            "places (inputs)": "the network itself (cat): it counts positions, not channels",
            "blocks.0.qkv": WIDTH,
            "blocks.1.qkv": WIDTH,
        },
    ),
    "mixer": (
        "patches 8/8, tokens.0 10/10, channels.0 12/12",
        {
            "tokens.0 (inputs)": "tokens.0 (addmm): it counts positions, not channels",
            "tokens.2": "the network itself (add): it counts positions, not channels",
        },
    ),
    "embedding": (
        "0 6/6, 1 8/8",
        {
            "0 (inputs)": "0 (embedding): its rows are picked by index",
        },
    ),
    "plain": ("0.0 8/8, 2.0 12/12", {}),
    "bias_without_norm": ("0 8/8, 2 8/8", {}),
    "residual": ("0.0 8/8, 2.0.one.0 8/8, 2.1.one.0 8/8, 2.2.one.0 8/8", {}),
    "projection_shortcut": ("0.0 6/6, 2.one.0 12/12, 2.two.0 12/12, 3.one.0 12/12", {}),
    "zero_padded_shortcut": (
        "0.0 4/4, 2.one.0 4/4, 3.one.0 8/8, 4.one.0 8/8, 5.one.0 16/16",
        {
            "3.two.0": "the code pads here by a fixed number of channels",
            "5.two.0": "the code pads here by a fixed number of channels",
        },
    ),
    "preactivation": ("0 8/8, 1.conv1 6/6, 2.conv1 6/6", {}),
    "inverted_residual": ("0.0 6/6, 2.layers.0.0 18/18, 3.layers.0.0 12/12", {}),
    "depthwise_separable": ("0.0 8/8, 4.0 12/12", {}),
    "depthwise_multiplier": ("0.0 6/6, 4.0 8/8", {}),
    "grouped": ("0.0 2/2, 2.0 4/4, 4.0 8/8", {}),
    "grouped_bottleneck": ("stem.0 8/8, narrow.0 4/4, middle.0 4/4", {}),
    "dilated_strided": ("0 8/8, 2 10/10", {}),
    "transposed": ("0 8/8, 2 4/4, 5 2/2", {}),
    "signal": ("0 8/8, 4 6/6", {}),
    "volume": ("0 6/6, 4 4/4", {}),
    "shared_weights": ("stem.0 8/8", {}),
    "used_twice": ("stem.0 8/8", {}),
    "functional_kernel": ("kernel 8/8", {}),
    "concat": ("one.0 6/6, two.0 5/5, join.0 8/8", {}),
    "dense_block": ("stem.0 6/6, layers.0.2 4/4, layers.1.2 4/4, layers.2.2 4/4", {}),
    "inception": (
        "stem.0 6/6, branches.0.0 4/4, branches.1.0.0 3/3, branches.1.2.0 5/5, branches.2.1.0 4/4",
        {},
    ),
    "u_net": ("down.0 6/6, bottom.0 10/10, up 6/6, join.0 8/8", {}),
    "upsample_add": ("fine.0 6/6, coarse.0 10/10, top 8/8", {}),
    "two_inputs": ("condition 8/8, conv.0 6/6", {}),
    "dict_output": ("stem.0 8/8", {}),
    "two_heads": ("stem.0 8/8", {}),
    "stochastic_depth": ("stem.0 8/8, blocks.0.0.0 6/6, blocks.1.0.0 6/6, blocks.2.0.0 6/6", {}),
    "python_branches": ("0.0 8/8, 1.layers.even.0 8/8", {}),
    "squeeze_excite": ("0.0 8/8, 2.down 4/4, 3.0 6/6", {}),
    "spatial_gate": (
        "3.0 6/6",
        {
            "0.0": "2 (mean): it reduces over all channels",
            "2.conv (inputs)": "2.conv (convolution): it is what a reduction left",
        },
    ),
    "instance_norm": ("0 8/8, 3 6/6", {}),
    "group_norm": (
        "3 6/6",
        {
            "0": "1 (native_group_norm): it normalises over the channels of a group together",
        },
    ),
    "group_norm_per_channel": ("0 8/8", {}),
    "layer_norm": (
        "1.wide 12/12, 2.wide 12/12",
        {
            "0": f"1.norm (native_layer_norm): {NORM}",
        },
    ),
    "prelu": ("0.0 8/8, 2.0 6/6", {}),
    "weight_norm": (
        "2 10/10",
        {
            "0": "weight normalisation takes the norm over it",
        },
    ),
    "raw_scale": ("stem.0 8/8", {}),
    "batch_norm_without_scale": ("1 8/8", {}),
    "recurrent": (
        "wide 8/8",
        {
            "embed": f"embed (view): {CONSTANT}",
            "gru": f"gru (zeros): {CONSTANT}",
        },
    ),
    "channel_shuffle": ("0.0 4/4, 2.0 4/4, 4.0 6/6", {}),
    "channel_shuffle_module": ("0.0 2/2, 2.0 3/3", {}),
    "pixel_shuffle": ("0 8/8, 2 6/6", {}),
    "pixel_shuffle_by_hand": ("0 5/5", {}),
    "pixel_unshuffle": ("0.0 5/5, 3.0 6/6", {}),
    "chunk_gate": ("stem.0 6/6, conv.0 8/8", {}),
    "gated_linear_unit": ("0.0 6/6, 2.0 8/8", {}),
    "split_sizes": (
        "one.0 6/6",
        {
            "stem.0": f"the network itself (split_with_sizes): {CONSTANT}",
            "stem.0 #2": f"the network itself (split_with_sizes): {CONSTANT}",
        },
    ),
    "halves": ("stem.0 4/4, one.0 6/6, two.0 6/6", {}),
    "fixed_slices": (
        "stem.0 #2 6/6, one.0 6/6",
        {
            "stem.0": f"the network itself (slice): {CONSTANT}",
        },
    ),
    "rotated_channels": (
        "stem.0 3/8, conv.0 6/6",
        {
            "stem.0": f"the network itself (slice): {CONSTANT}",
        },
    ),
    "permuted_channels": (
        "conv.0 6/6",
        {
            "stem.0": "the network itself (index): it picks channels by their numbers",
            "order (inputs)": "the network itself (index): it holds the numbers of channels",
            "conv.0 (inputs)": "conv.0 (convolution): it picks channels by their numbers",
        },
    ),
    "flatten_linear": ("0.0 6/6, 4 10/10", {}),
    "hard_view": (
        "stem.0 6/6",
        {
            "last.0": f"the network itself (view): {CONSTANT}",
        },
    ),
    "unflattened": ("start 6/6, conv.0 8/8", {}),
    "unbound_channels": (
        "stem.0 8/8",
        {
            "three": "the network itself (unbind): it takes every channel apart",
            "last (inputs)": "last (addmm): it counts positions, not channels",
        },
    ),
    "written_in_place": ("one.0 6/6, two.0 6/6, conv.0 6/6", {}),
}


@pytest.fixture(autouse=True)
def _visible_attention():
    """Multi-head attention in parts, not as one opaque call."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.fixture(scope="module")
def analyses() -> dict[str, tuple[Network, Analysis]]:
    built = {name: build() for name, build in zoo().items()}
    return {name: (network, analyse(network)) for name, network in built.items()}


def some_classes(analysis: Analysis, rng: random.Random, share: float) -> list[int]:
    """A random part of every group, at least one of each, that empties no tensor."""
    chosen: list[int] = []
    for group in analysis.prunable:
        count = max(1, round(share * len(group.classes)))
        for number in rng.sample(group.classes, count):
            if analysis.emptied([*chosen, number]) is None:
                chosen.append(number)
    return chosen


def zeroed_copy(network: Network, analysis: Analysis, classes: list[int]) -> nn.Module:
    """Our own zeroing, independent of the run-time check."""
    module = copy.deepcopy(network.module)
    state = module.state_dict(keep_vars=True)
    for slot, indices in analysis.removed(classes):
        if "running" in slot.tensor or "original1" in slot.tensor:
            continue
        with torch.no_grad():
            state[slot.tensor].index_fill_(slot.dim, torch.from_numpy(indices), 0.0)
    return module


def outputs(module: nn.Module, network: Network) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(flat_outputs(module(*network.example(3, seed=7))))


def counted_macs(network: Network) -> int:
    # torch's counter knows no fused attention on the CPU
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.module(*network.example(2))
    return counter.get_total_flops() // 2 // 2


def test_the_zoo_is_large_and_everything_in_it_has_an_expectation():
    assert set(zoo()) == set(EXPECTED)
    assert len(EXPECTED) >= 32


@pytest.mark.parametrize("name", EXPECTED)
def test_what_can_be_cut_and_what_is_frozen(name, analyses):
    cuttable, frozen = EXPECTED[name]
    _, analysis = analyses[name]
    found = ", ".join(f"{g.name} {len(g.classes)}/{g.width}" for g in analysis.groups if g.classes)
    assert found == cuttable
    other = {}
    for group in analysis.groups:
        reasons = [
            r for r in group.reasons if not r.endswith(("network's output", "network's input"))
        ]
        if reasons:
            other[group.name] = reasons[0]
    assert set(other) == set(frozen)
    for group_name, part in frozen.items():
        assert part in other[group_name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_cut_network_computes_what_the_zeroed_one_does(name, analyses):
    network, analysis = analyses[name]
    before = {n: t.clone() for n, t in network.module.state_dict().items()}
    classes = some_classes(analysis, random.Random(name), 0.5)
    smaller = cut(network, analysis, classes)
    theirs = outputs(zeroed_copy(network, analysis, classes), network)
    for ours, reference in zip(outputs(smaller.module, network), theirs, strict=True):
        assert (ours - reference).abs().max() <= 1e-5 * reference.abs().max()
    assert smaller.params == analysis.params(classes) < network.params
    assert counted_macs(smaller) == analysis.macs(classes) < counted_macs(network)
    # the network given is as it was
    after = network.module.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("name", EXPECTED)
def test_multiply_adds_are_counted_as_torch_counts_them(name, analyses):
    network, analysis = analyses[name]
    assert counted_macs(network) == analysis.macs() == network_macs(network)


@pytest.mark.parametrize("name", EXPECTED)
def test_edits_replayed_on_a_fresh_network_give_the_same_bits(name, analyses):  # users-ask 20
    network, analysis = analyses[name]
    rng = random.Random(name)
    once = cut(network, analysis, some_classes(analysis, rng, 0.3))
    again = analyse(once)
    classes = some_classes(again, rng, 0.2)
    twice = cut(once, again, classes)
    fresh = replay(zoo()[name]().module, twice.edits)
    fresh.load_state_dict(twice.module.state_dict(), strict=True)
    for ours, reference in zip(
        outputs(fresh, network), outputs(twice.module, network), strict=True
    ):
        assert torch.equal(ours, reference)


def test_shared_weights_stay_shared(analyses):
    network, analysis = analyses["shared_weights"]
    smaller = cut(network, analysis, analysis.prunable[0].classes[:3])
    assert smaller.module.one.weight is smaller.module.two.weight
    assert smaller.module.one.weight.shape[:2] == (5, 5)


def test_attributes_that_repeat_a_width_follow_it(analyses):
    network, analysis = analyses["inverted_residual"]
    wide = next(group for group in analysis.prunable if group.name == "2.layers.0.0")
    module = cut(network, analysis, wide.classes[:8]).module
    expand, spread, project = (module[2].layers[n][0] for n in (0, 2, 4))
    assert (expand.in_channels, expand.out_channels) == (6, 10)
    assert (spread.in_channels, spread.out_channels, spread.groups) == (10, 10, 10)
    assert (project.in_channels, project.out_channels) == (10, 6)
    assert module[2].layers[2][1].num_features == 10
