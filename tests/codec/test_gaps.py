"""Deep Compression's gap code and container: the identities of its specification."""

from __future__ import annotations

import contextlib
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lilliput.codec.gaps import best_width, from_gaps, pack_tensors, to_gaps, unpack_tensors
from lilliput.errors import Refused
from lilliput.prune.codebooks import kmeans
from lilliput.testing.tiny import tiny_network


def back(live: np.ndarray, bits: int) -> np.ndarray:
    coded = to_gaps(live, bits)
    assert coded.gaps.size == 0 or 0 <= coded.gaps.min() <= coded.gaps.max() < 1 << bits
    found = np.zeros(live.size, np.bool_)
    found[from_gaps(coded.gaps, live.size)[~coded.filler]] = True
    return found


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_awkward_layer_comes_back(bits):
    """Identity 3."""
    full = 1 << bits
    awkward = [np.zeros(50, np.bool_), np.ones(50, np.bool_), np.zeros(0, np.bool_)]
    for run in (0, 1, full - 1, full, full + 1, 2 * full):
        alone = np.zeros(2 * run + 2, np.bool_)
        alone[run] = True
        awkward += [alone, alone[: run + 1], np.concatenate([[True], alone])]
    for live in awkward:
        assert np.array_equal(back(live, bits), live)


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 8))
def test_any_layer_comes_back(live, bits):
    live = np.array(live, np.bool_)
    assert np.array_equal(back(live, bits), live)


@given(st.lists(st.integers(0, 600), max_size=20), st.integers(1, 8))
def test_fillers_are_counted_by_runs(runs, bits):
    """Identity 4: floor(run / 2**b) for each run that an entry ends."""
    live = np.concatenate([np.array([0] * run + [1], np.bool_) for run in runs] or [[]])
    fillers = int(to_gaps(live.astype(np.bool_), bits).filler.sum())
    assert fillers == sum(run >> bits for run in runs)


@pytest.mark.parametrize("bits", [4, 5])
def test_fillers_of_an_even_mask_are_as_many_as_theory_says(bits):
    """Identity 4: at density p there are q / (1 - q) a weight, q = (1 - p)**(2**b)."""
    live = np.random.default_rng(0).random(3_000_000) < 0.08
    q = 0.92 ** (1 << bits)
    found = to_gaps(live, bits).filler.sum() / live.sum()
    assert found == pytest.approx(q / (1 - q), rel=0.02)


def test_five_bits_are_best_at_eight_percent():
    live = np.random.default_rng(0).random(100_000) < 0.08
    assert best_width(live, 5) == 5


KINDS = {
    "shared": lambda rng: rng.choice(np.float32([0, 0, 0, 0, 0.5, -0.25, 0.3]), (30, 40)),
    "half": lambda rng: rng.choice(np.float32([0, 0, 0, 0.5, -0.25]), (20, 5, 5, 5)),
    "all zero": lambda rng: np.zeros((30, 30), np.float32),
    "no zeros": lambda rng: rng.choice(np.float32([0.1, 0.2]), (40, 3)),
    "raw": lambda rng: rng.standard_normal((9, 11)).astype(np.float32),
    "0-d": lambda rng: np.float32(3).reshape(()),
    "1x1": lambda rng: rng.choice(np.float32([0, 1, 2]), (16, 8, 1, 1)),
    "first": lambda rng: np.float32([7] + [0] * 700),
    "last": lambda rng: np.float32([0] * 700 + [7]),
    "signed zeros": lambda rng: np.float32([0.0, -0.0] * 50),
    "odd": lambda rng: np.float32([np.nan, np.inf, -np.inf, 1e-42] * 30),
    "bias": lambda rng: rng.choice(np.float32([0, 0.5, -0.5, 0.125]), 500),
    "empty": lambda rng: np.zeros((0, 4), np.float32),
}


def test_tensors_come_back_bit_for_bit_and_the_bill_adds_up():
    """Identities 1 and 12."""
    rng = np.random.default_rng(1)
    tensors = {name: make(rng) for name, make in KINDS.items()}
    packed, bill = pack_tensors(tensors)
    assert packed == pack_tensors(tensors)[0]
    assert 10 + sum(sum(parts.values()) for parts in bill.values()) == len(packed)
    for (name, tensor), found in zip(tensors.items(), unpack_tensors(packed), strict=True):
        assert found.shape == tensor.shape, name
        assert found.tobytes() == tensor.tobytes(), name
    assert bill["shared"].keys() == {"header", "codes", "codebook", "gaps", "indices"}
    assert bill["half"]["codebook"] == 4
    assert bill["raw"].keys() == {"header", "values"}


def few_values(weight: np.ndarray) -> np.ndarray:
    """A third of the weights, on eight values."""
    live = np.abs(weight) > np.quantile(np.abs(weight), 2 / 3)
    made = np.zeros_like(weight)
    made[live] = kmeans(weight[live], 8).decoded
    return made


@pytest.mark.parametrize("kept", ["all weights as they are", "few values"])
def test_a_network_comes_back_with_its_state_and_its_answers(kept):
    module = tiny_network().copy().module
    state = {n: t.numpy().copy() for n, t in module.state_dict().items() if t.is_floating_point()}
    if kept == "few values":
        state = {n: few_values(t) if t.ndim > 1 else t for n, t in state.items()}
        module.load_state_dict({n: torch.from_numpy(t) for n, t in state.items()}, strict=False)
    packed, bill = pack_tensors(state)
    assert ("values" in bill["block1.conv1.weight"]) == (kept != "few values")
    again = tiny_network(seed=7).copy().module
    found = {n: torch.tensor(t) for n, t in zip(state, unpack_tensors(packed), strict=True)}
    x = torch.randn(8, 3, 8, 8)
    assert not torch.equal(again(x), module(x))
    again.load_state_dict(found, strict=False)
    for name, tensor in module.state_dict().items():
        assert again.state_dict()[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    assert torch.equal(again(x), module(x))


@given(
    arrays(np.float32, st.integers(1, 300), elements=st.sampled_from([0.0, 0.0, 0.5, -0.25, 0.75]))
)
def test_no_tensor_costs_more_than_its_numbers_and_no_stream_more_than_its_bits(tensor):
    parts = pack_tensors({"weight": tensor})[1]["weight"]
    assert sum(parts.values()) - parts["header"] <= tensor.nbytes
    if "values" in parts:
        return
    live = tensor != 0
    bits = np.unique(tensor[live]).size.bit_length()
    width = best_width(live, bits)
    entries = to_gaps(live, width).gaps.size
    assert parts["gaps"] <= (entries * width + 7) // 8
    assert parts["indices"] <= (entries * bits + 7) // 8


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_damage_is_refused(data):
    """Identity 11."""
    rng = np.random.default_rng(2)
    packed, _ = pack_tensors({name: KINDS[name](rng) for name in ("shared", "raw", "bias")})
    made = bytearray(packed)
    made[data.draw(st.integers(0, len(made) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Refused):
        unpack_tensors(bytes(made))
    with pytest.raises(Refused):
        unpack_tensors(packed[: data.draw(st.integers(0, len(packed) - 1))])
    # Somebody who means harm: an error, or some tensors, and nothing else.
    crafted = bytes(made[:4]) + zlib.crc32(made[8:]).to_bytes(4, "little") + bytes(made[8:])
    with contextlib.suppress(Refused):
        unpack_tensors(crafted)


def test_another_version_is_refused_by_name():
    with pytest.raises(Refused, match="has version 2, and this lilliput reads 1"):
        unpack_tensors(b"DCH\x02" + bytes(8))
    with pytest.raises(Refused, match="not a file of gaps"):
        unpack_tensors(b"LIL\x02" + bytes(8))
