"""A damaged or crafted file: an error or the exact model, and nothing else."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from lilliput.codec import tensors
from lilliput.codec.container import DEFAULT_LIMIT, decode, decode_with_bill, encode
from lilliput.errors import Refused

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

HEADER = struct.Struct("<3sBIIQII")
"""Of version 1, which is read still."""
SLACK = 12_000_000
"""Bytes of working memory that a small file may take beside what it declares."""


@pytest.fixture(scope="module")
def packed(mixed) -> bytes:
    return encode(mixed)[0]


def mutations(packed: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Bits flipped, bytes set, parts cut out, repeated, swapped, the end cut off or made longer."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        made = bytearray(packed)
        at, to = sorted(rng.integers(0, len(made) + 1, 2))
        kind = number % 7
        if kind == 0:
            for place in rng.integers(0, len(made), rng.integers(1, 9)):
                made[place] ^= 1 << rng.integers(8)
        elif kind == 1:
            place = rng.integers(0, HEADER.size)
            made[place] = rng.integers(256)
        elif kind == 2:
            del made[at : min(to, at + 40)]
        elif kind == 3:
            made[at:at] = made[at : min(to, at + 40)]
        elif kind == 4:
            del made[at:]
        elif kind == 5:
            made += rng.bytes(rng.integers(1, 50))
        else:
            made[at : at + 8] = rng.bytes(len(made[at : at + 8]))
        yield bytes(made)


def with_checksum(made: bytes) -> bytes:
    """As somebody would who means harm."""
    if len(made) < 8:
        return made
    seed = zlib.crc32(made[3:4]) if made[3] > 2 else 0
    return made[:4] + struct.pack("<I", zlib.crc32(made[8:], seed)) + made[8:]


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Calls give the peak of allocated bytes."""
    tracemalloc.start()
    peaks: list[int] = []
    try:
        yield lambda: peaks[0]
    finally:
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


def opened(made: bytes) -> bytes | None:
    try:
        return bytes(decode(made, max_bytes=1 << 20))
    except Refused:
        return None


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_chance_damage(packed, mixed, count):
    for made in mutations(packed, count, seed=1):
        assert opened(made) == (mixed if made == packed else None)


@pytest.mark.parametrize(
    "count", [200, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_damage_with_a_right_checksum(packed, mixed, count):
    for made in mutations(packed, count, seed=2):
        assert opened(with_checksum(made)) in (mixed, None)


def test_damage_takes_no_more_memory_than_is_declared(packed):
    for made in mutations(packed, 40, seed=3):
        with traced() as peak:
            opened(with_checksum(made))
        assert peak() < (1 << 20) + SLACK


def test_rows_with_steps_take_no_table_each(model_of, on_grids, monkeypatch):
    monkeypatch.setattr(tensors, "_best", lambda *_: tensors.GRIDS)
    content = model_of({"w": on_grids(1 << 14, 4)})
    packed, _ = encode(content)
    with traced() as peak:
        assert decode(packed) == content
    assert peak() < len(content) + SLACK


def test_a_codebook_larger_than_its_tensor_is_refused(model_of, monkeypatch):
    """The others are decoded in memory that the declared size pays for."""
    weights = np.repeat(np.arange(8, dtype=np.float32), 8).reshape(8, 8)
    books = tensors._books

    def padded(words, form):
        made, indices = books(words, form)
        more = np.arange(65 - made[0].size, dtype=np.uint64)
        return [np.concatenate([made[0], more])], indices

    content = model_of({"w": weights})
    monkeypatch.setattr(tensors, "_best", lambda *_: tensors.CODEBOOK)
    assert decode(encode(content)[0]) == content
    monkeypatch.setattr(tensors, "_books", padded)
    with monkeypatch.context() as trusting:
        trusting.setattr(tensors, "Refused", AssertionError)
        with pytest.raises(AssertionError, match="damaged"):
            encode(content)


def test_every_bit_is_covered(model_of):
    content = model_of({"w": np.arange(20, dtype=np.int8)})
    packed, _ = encode(content)
    for bit in range(8 * len(packed)):
        made = bytearray(packed)
        made[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused):
            decode(bytes(made))


def test_every_length_is_refused(packed):
    for length in range(0, len(packed), 7):
        with pytest.raises(Refused):
            decode(packed[:length])


def header(**changes: int) -> dict[str, int]:
    return {"onnx_crc": 0, "onnx_bytes": 0, "graph_bytes": 0, "packed_graph_bytes": 0, **changes}


def crafted(body: bytes = b"", **changes: int) -> bytes:
    return with_checksum(HEADER.pack(b"LIL", 1, 0, *header(**changes).values()) + body)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (b"", r"not a \.lil file"),
        (b"PK\x03\x04", r"not a \.lil file \(it does not begin with LIL\)"),
        (b"LIL\x01", "cut short"),
        (b"LIL\x04" + bytes(40), "has version 4, and this lilliput reads up to 3\n  → pip install"),
        (b"LIL\x00" + bytes(40), "has version 0"),
        (b"LIL\x01" + bytes([1]) * 40, r"damaged or cut short \(checksum\)\n  → copy or pack"),
        (crafted(onnx_bytes=1 << 40), "unpacks to 1099511627776 bytes, more than the limit"),
        (crafted(onnx_bytes=9, graph_bytes=10), "contradicts itself about its sizes"),
        (crafted(onnx_bytes=9, packed_graph_bytes=9), "contradicts itself about its sizes"),
        (crafted(bytes([9, 0, 0, 0, 1]), onnx_bytes=0), "contradicts itself about its sizes"),
        (with_checksum(b"LIL\x01" + bytes(9)), "contradicts itself about its sizes"),
        (with_checksum(b"LIL\x02" + bytes(7)), "contradicts itself about its sizes"),
        (with_checksum(b"LIL\x02" + bytes(8) + b"\x09\x80"), "contradicts itself"),
        (with_checksum(b"LIL\x02" + bytes(8) + b"\xff" * 12), "contradicts itself"),
        (with_checksum(b"LIL\x02" + bytes(8) + b"\x09\x09\x12"), "contradicts itself"),
        (with_checksum(b"LIL\x02" + bytes(8) + b"\x09\x09\x03\xff"), "packed graph is damaged"),
        (crafted(b"abcd", onnx_bytes=9, graph_bytes=9, packed_graph_bytes=4), "graph"),
    ],
)
def test_crafted_headers(made, message):
    with pytest.raises(Refused, match=message):
        decode(made)
    with pytest.raises(Refused, match=message):
        decode_with_bill(made)


def test_a_graph_that_grows_is_stopped():
    from lilliput.codec.plain import pack_plain

    bomb = pack_plain(bytes(50_000_000))
    made = crafted(bomb, onnx_bytes=1000, graph_bytes=1000, packed_graph_bytes=len(bomb))
    with traced() as peak, pytest.raises(Refused, match="has 1001 bytes where it declares 1000"):
        decode(made)
    assert peak() < SLACK


def test_a_graph_without_the_places_for_its_tensors():
    from lilliput.codec.plain import pack_plain

    graph = pack_plain(b"\x08\x0a")
    made = crafted(graph, onnx_bytes=50, graph_bytes=2, packed_graph_bytes=len(graph))
    with pytest.raises(Refused, match="does not have the places its tensors need"):
        decode(made)


def test_the_limit_is_the_callers(packed, mixed):
    with pytest.raises(Refused, match=f"unpacks to {len(mixed)} bytes, more than the limit of 99"):
        decode(packed, max_bytes=99)
    assert decode(packed, max_bytes=len(mixed)) == mixed
    assert DEFAULT_LIMIT == 1 << 29
