"""Canonical Huffman codes: the identities of Deep Compression's specification (number 5)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.codec.huffman import (
    LONGEST,
    _depths,
    canonical_codes,
    code_lengths,
    pack_symbols,
    unpack_symbols,
)
from lilliput.errors import Refused


def round_trip(symbols: np.ndarray, size: int) -> bytes:
    packed = pack_symbols(symbols, size)
    found, used = unpack_symbols(packed, size, symbols.size)
    assert np.array_equal(found, symbols)
    assert used == len(packed)
    # Whatever follows is not looked at.
    assert np.array_equal(unpack_symbols(packed + b"\xff\x00", size, symbols.size)[0], symbols)
    return packed


def test_nothing_takes_a_table_alone():
    assert len(round_trip(np.zeros(0, np.int64), 8)) == 4


def test_one_symbol_takes_a_bit_each():
    assert code_lengths([0, 9, 0]) == [0, 1, 0]
    assert len(round_trip(np.full(100, 2), 4)) == 2 + 13


def test_two_symbols_take_a_bit_each():
    assert code_lengths([1, 1000]) == [1, 1]
    round_trip(np.array([0, 1, 1, 0, 1]), 2)


def test_256_equal_ones_take_a_byte_each():
    assert code_lengths([7] * 256) == [8] * 256
    round_trip(np.arange(256), 256)


def test_fibonacci_frequencies_are_kept_to_the_limit():
    frequencies = [1, 1]
    while len(frequencies) < 40:
        frequencies.append(frequencies[-1] + frequencies[-2])
    lengths = code_lengths(frequencies)
    assert max(lengths) == LONGEST
    assert sum(2.0**-length for length in lengths) <= 1
    symbols = np.repeat(np.arange(12), np.array(frequencies[:12]))
    round_trip(symbols, 40)


def test_codes_that_were_held_to_the_limit_are_full_and_come_back():
    frequencies = [1, 1]
    while len(frequencies) < 20:
        frequencies.append(frequencies[-1] + frequencies[-2])
    assert max(_depths(dict(enumerate(frequencies))).values()) > LONGEST
    lengths = code_lengths(frequencies)
    assert max(lengths) <= LONGEST
    assert sum(2.0**-length for length in lengths) == 1.0
    symbols = np.repeat(np.arange(20), frequencies)
    packed = round_trip(np.random.default_rng(0).permutation(symbols), 20)
    assert len(packed) == 10 + -(-int(np.dot(lengths, frequencies)) // 8)


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=80))
def test_lengths_are_a_full_code_within_a_bit_of_the_entropy(frequencies):
    counts = np.array([f for f in frequencies if f])
    lengths = np.array(code_lengths(frequencies))
    if counts.size < 2:
        assert lengths.sum() == counts.size
        return
    assert (lengths > 0).tolist() == [f > 0 for f in frequencies]
    assert sum(2.0**-n for n in lengths[lengths > 0].tolist()) == 1.0
    shares = counts / counts.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    mean = float((lengths[lengths > 0] * shares).sum())
    assert entropy - 1e-9 <= mean < entropy + 1


@given(st.lists(st.integers(0, 30), max_size=300))
def test_any_symbols_come_back(symbols):
    round_trip(np.array(symbols, np.int64), 31)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_bits_that_fill_the_last_byte_are_not_looked_at(symbols):
    packed = pack_symbols(np.array(symbols, np.int64), 31)
    lengths = code_lengths(np.bincount(symbols, minlength=31).tolist())
    spare = -sum(lengths[symbol] for symbol in symbols) % 8
    other = packed[:-1] + bytes([packed[-1] | (1 << spare) - 1])
    found, used = unpack_symbols(other, 31, len(symbols))
    assert found.tolist() == symbols
    assert used == len(packed)


def test_damage_is_refused():
    with pytest.raises(Refused, match="table is cut short"):
        unpack_symbols(b"\x11", 8, 1)
    with pytest.raises(Refused, match="table is damaged"):
        unpack_symbols(b"\x11\x01\x00", 4, 1)
    packed = pack_symbols(np.arange(16), 16)
    with pytest.raises(Refused, match="damaged or cut short"):
        unpack_symbols(packed[:-1], 16, 16)
    with pytest.raises(Refused, match="damaged or cut short"):
        unpack_symbols(bytes(8), 16, 1)
    assert canonical_codes([2, 1, 2]) == {1: (0, 1), 0: (2, 2), 2: (3, 2)}
