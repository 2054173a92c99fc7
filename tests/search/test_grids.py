"""Weights and activations on grids of few bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Truth
from lilliput.distill.sources import Examples
from lilliput.errors import LilliputError
from lilliput.search.grids import (
    OnGrid,
    activations_on_grid,
    best_scales,
    held_on_grid,
    input_ranges,
    inputs_on_grids,
    on_grid,
    rounded,
    with_weight_bits,
)
from lilliput.testing.tiny import tiny_context, tiny_network


@given(st.integers(2, 8), st.integers(0, 2**32))
def test_k_bits_have_2_to_the_k_minus_one_levels_and_zero_is_one(bits, seed):
    weight = torch.randn(3, 400, generator=torch.Generator().manual_seed(seed))
    scale = best_scales(weight, bits)
    levels = torch.round(on_grid(weight, bits) / scale)
    assert levels.abs().max() <= 2 ** (bits - 1) - 1
    for row in levels:
        assert len(row.unique()) <= 2**bits - 1
    assert torch.equal(rounded(torch.zeros(3, 1), scale, bits), torch.zeros(3, 1))


def test_32_bits_are_the_weights_bit_for_bit():
    weight = torch.randn(4, 5)
    assert on_grid(weight, 32) is weight
    assert torch.equal(activations_on_grid(weight, -1.0, 1.0, 32), weight)


@given(st.integers(2, 8))
def test_a_sought_scale_is_at_least_as_good_as_the_largest_weight(bits):
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(bits))
    plain = weight.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1) / (2 ** (bits - 1) - 1)
    ours = (on_grid(weight, bits) - weight).pow(2).sum()
    assert ours <= (rounded(weight, plain, bits) - weight).pow(2).sum() + 1e-6


def test_zeros_have_one_sign():
    weight = torch.linspace(-1, 1, 41).repeat(3, 1)
    assert not torch.signbit(on_grid(weight, 3)[on_grid(weight, 3) == 0]).any()


def test_more_bits_are_nearer():
    weight = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    errors = [float((on_grid(weight, bits) - weight).pow(2).sum()) for bits in (2, 3, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)


def test_one_bit_is_refused():
    with pytest.raises(LilliputError, match="1 bits have no grid with a zero"):
        on_grid(torch.ones(1, 2), 1)


def test_activations_without_a_sign_use_all_levels():
    x = torch.linspace(0, 4, 1000)
    assert len(activations_on_grid(x, 0.0, 4.0, 2).unique()) == 4
    assert len(activations_on_grid(x - 2, -2.0, 2.0, 2).unique()) == 3
    assert activations_on_grid(torch.tensor([9.0]), 0.0, 4.0, 8) == 4.0


def test_a_network_on_its_grids_is_held_there_through_a_training(tmp_path):
    network = with_weight_bits(tiny_network(), {"stem": 3, "classify": 32})
    assert network.held == {"stem.weight": "fixed"}
    trained = _trained(network, tmp_path, ())
    assert torch.equal(trained.module.stem.weight, network.module.stem.weight)
    assert not torch.equal(trained.module.classify.weight, network.module.classify.weight)


def test_a_training_on_grids_ends_on_them_and_leaves_no_trace(tmp_path):
    network = tiny_network()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    trained = _trained(network, tmp_path, (OnGrid({"stem": 2, "classify": 32}),))
    assert list(trained.module.state_dict()) == list(before)
    assert type(trained.module.stem) is type(network.module.stem)
    for filter_ in trained.module.stem.weight.flatten(1):
        assert len(filter_.unique()) <= 3
    assert not torch.equal(trained.module.stem.weight, on_grid(before["stem.weight"], 2))
    assert all(torch.equal(before[n], v) for n, v in network.module.state_dict().items())
    assert held_on_grid(trained, {"stem": 2}).held == {"stem.weight": "fixed"}


def test_inputs_of_few_bits_change_the_answers_only_for_the_time_being():
    network = tiny_network()
    (x,) = network.example(4)
    ranges = input_ranges(network, ["classify"], [(x.numpy(),)])
    assert ranges["classify"][0] == 0.0
    with torch.no_grad():
        whole = network.module(x)
        with inputs_on_grids(network.module, {"classify": 2}, ranges):
            assert not torch.equal(network.module(x), whole)
        with inputs_on_grids(network.module, {"classify": 32}, ranges):
            assert torch.equal(network.module(x), whole)
        assert torch.equal(network.module(x), whole)


def _trained(network, folder, companions):
    context = tiny_context(folder)
    source = Examples(context.data, context.task, network.preprocessing, 32)
    return train(
        network,
        [Truth(context.task)],
        source,
        Schedule(1, 0.05),
        context,
        key="k",
        companions=companions,
    )
