"""Tables that every machine must make alike."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.codec import tables
from lilliput.codec.phrases import PHRASES
from lilliput.codec.sparsity import odds_table
from lilliput.codec.tables import bell, log_of


def far_from_a_tie(value: float) -> bool:
    return abs(value - math.floor(value) - 0.5) > 1e-5


def test_no_entry_depends_on_the_last_bit_of_a_logarithm():
    # log2(1) is exact; every other entry is clear of the boundary between two integers.
    assert all(far_from_a_tie(16 * math.log2(2 * n + 1)) for n in range(1 << 14))
    assert all(far_from_a_tie(2**30 / (1 + math.exp(-j / 64))) for j in range(-1280, 1281))
    assert all(far_from_a_tie(2 ** (16 + part / 16)) for part in range(16))


def test_checksums_of_the_specification():
    assert zlib.crc32(tables.logarithms().astype("<i2").tobytes()) == LOGARITHMS
    assert zlib.crc32(tables.logistic().astype("<i8").tobytes()) == LOGISTIC
    bells = np.array([bell(256, 8 * n + 4, 0) for n in range(-4, 16)])
    assert zlib.crc32(bells.astype("<i8").tobytes()) == BELLS

    odds = odds_table().counts.astype("<i8")
    assert zlib.crc32(odds.tobytes()) == ODDS
    assert (len(PHRASES), zlib.crc32(PHRASES)) == (6515, DICTIONARY)


ODDS, DICTIONARY = 0x11249947, 0x15D7A7AC
LOGARITHMS, LOGISTIC, BELLS = 0xB2E376EA, 0x9A45E136, 0x410AB13B


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_logarithms_are_near(value, more):
    found = int(log_of(np.array([value]), value + more)[0])
    step = 2 ** max(0, (value + more).bit_length() - 14)
    low, high = (value // step + 0.5) * step, (value // step + 0.5) * step
    assert 16 * math.log2(low) - 0.51 <= found <= 16 * math.log2(high) + 0.51


@pytest.mark.parametrize("levels", [15, 16, 255, 256])
def test_bells_are_wide_as_they_should_be(levels):
    values = (np.arange(levels) + levels // 2) % levels - levels // 2
    for scale in range(0, 16 * int(math.log2(levels / 3)), 8):
        counts = bell(levels, scale, 0) - 1
        mean = (counts * abs(values)).sum() / counts.sum()
        wanted = 2 ** (scale / 16)
        assert 0.55 * wanted - 0.1 < mean < 1.25 * wanted + 0.1
    assert counts.min() >= 0
    assert 3900 < bell(levels, 0, 0).sum() < 4096 + 2 * levels


@given(st.integers(0, 64), st.integers(0, 7))
def test_bells_lie_where_they_are_centred(scale, eighth):
    counts = bell(255, scale, eighth) - 1
    values = (np.arange(255) + 127) % 255 - 127
    assert (counts * values).sum() / counts.sum() == pytest.approx(
        eighth / 8, abs=0.05 + scale / 99
    )
