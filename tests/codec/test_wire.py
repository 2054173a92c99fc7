"""The walk over protobuf's wire format, on bytes written by hand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.codec.wire import MOST_AXES, Slot, cut, missing, paste, payloads
from lilliput.errors import Refused

FLOAT, INT8, INT64 = 1, 3, 7


def varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(kind: int, dims: bytes, content: bytes, name: bytes = b"w", at: int = 9) -> bytes:
    return dims + number(2, kind) + field(at, content) + field(8, name)


def model(*tensors: bytes) -> bytes:
    return field(7, b"".join(field(5, made) for made in tensors))


PLAIN = tensor(FLOAT, number(1, 3) + number(1, 2), bytes(24))


def test_a_slot_says_all_that_is_needed():
    content = number(1, 8) + model(PLAIN)
    assert payloads(content) == [Slot("w", FLOAT, (3, 2), content.index(bytes(24)), 24)]


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(PLAIN, id="dimensions one by one"),
        pytest.param(tensor(FLOAT, field(1, b"\x03\x02"), bytes(24)), id="packed dimensions"),
        pytest.param(tensor(FLOAT, number(1, 6), bytes(24), at=4), id="float_data"),
        pytest.param(PLAIN + b"\x79" + bytes(8) + b"\x7d" + bytes(4), id="fixed-width fields"),
        pytest.param(PLAIN + field(9, bytes(24)), id="a second content"),
    ],
)
def test_ways_to_write_a_tensor(made):
    content = model(made, PLAIN)
    slots = payloads(content)
    assert [slot.bytes for slot in slots] == [24, 24]
    skeleton = cut(content, slots)
    assert missing(skeleton, len(content)) == slots
    whole = bytearray(len(content))
    paste(skeleton, slots, memoryview(whole))
    for slot in slots:
        whole[slot.offset : slot.offset + slot.bytes] = bytes(24)
    assert whole == content


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(tensor(FLOAT, number(1, 5), bytes(24)), id="another length"),
        pytest.param(tensor(INT64, number(1, 3), bytes(24)), id="a type that stays"),
        pytest.param(tensor(INT8, number(1, 24), bytes(24), at=4), id="float_data of integers"),
        pytest.param(field(9, bytes(24)) + number(1, 6) + number(2, FLOAT), id="content first"),
        pytest.param(tensor(FLOAT, number(1, 0), b"") + bytes([0x48, 1] * 9), id="nothing in it"),
    ],
)
def test_contents_that_stay(made):
    assert payloads(model(made)) == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(model(PLAIN)[:-1], id="cut short"),
        pytest.param(model(PLAIN) + b"\xff", id="half a number"),
        pytest.param(model(PLAIN) + b"\xff" * 11, id="a number without end"),
        pytest.param(model(PLAIN) + b"\x0b", id="a group"),
        pytest.param(model(PLAIN) + b"\x79", id="half a field"),
        pytest.param(model(tensor(FLOAT, field(1, b"\x80"), bytes(24))), id="half a dimension"),
        pytest.param(model(PLAIN + b"\x0d" + bytes(20)), id="a fixed dimension"),
        pytest.param(field(7, field(1, field(5, field(6, PLAIN)))) + b"\x3a\xff\x01", id="beyond"),
    ],
)
def test_what_is_no_model_has_no_slots(content):
    assert payloads(content) == []


def test_branches_are_followed_but_not_for_ever():
    def nested(depth: int) -> bytes:
        graph = field(5, PLAIN)
        for _ in range(depth):
            graph = field(1, field(5, field(6, graph)))
        return field(7, graph)

    assert len(payloads(nested(20))) == 1
    assert payloads(nested(30)) == []


def test_a_skeleton_must_fit_its_length():
    content = model(PLAIN)
    skeleton = cut(content, payloads(content))
    with pytest.raises(Refused, match="does not have the places"):
        missing(skeleton, len(content) + 1)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_walk(content):
    slots = payloads(model(content))
    assert all(slot.bytes > 0 for slot in slots)


def test_many_axes_are_not_multiplied():
    """A product of so many would take longer than the file warrants."""
    axes = field(1, varint(2**63 - 1) * 200_000)
    began = time.process_time()
    assert payloads(model(tensor(FLOAT, axes, bytes(4)) + field(9, bytes(4)) * 1000)) == []
    assert time.process_time() - began < 5.0
    assert payloads(model(tensor(FLOAT, number(1, 1) * 64, bytes(4) * 5))) == []
    (slot,) = payloads(model(tensor(FLOAT, number(1, 1) * 63 + number(1, 8), bytes(32))))
    assert len(slot.shape) == MOST_AXES
