"""The child's language: what goes in comes out, and nonsense is refused."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lilliput.runtimes import frames

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.int8, np.bool_])


@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=3).filter(
        lambda message: "arrays" not in message
    ),
    st.lists(npst.arrays(DTYPES, npst.array_shapes(min_dims=0, min_side=0)), max_size=3),
)
def test_frames_come_back(message: dict[str, object], arrays: list[np.ndarray]) -> None:
    stream = io.BytesIO()
    frames.send(stream, message, arrays)
    frames.send(stream, {"next": 1})
    stream.seek(0)
    got, got_arrays = frames.receive(stream)
    assert got == message
    assert [a.dtype for a in got_arrays] == [a.dtype for a in arrays]
    for ours, theirs in zip(got_arrays, arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert frames.receive(stream) == ({"next": 1}, [])


def test_a_strided_array_arrives_whole() -> None:
    stream = io.BytesIO()
    frames.send(stream, {}, [np.arange(12).reshape(3, 4).T])
    stream.seek(0)
    np.testing.assert_array_equal(frames.receive(stream)[1][0], np.arange(12).reshape(3, 4).T)


def test_the_end_is_told() -> None:
    with pytest.raises(EOFError):
        frames.receive(io.BytesIO(b""))
    with pytest.raises(EOFError):
        frames.receive(io.BytesIO(struct.pack("<I", 10) + b"{}"))


def test_declared_sizes_are_bounded() -> None:
    with pytest.raises(ValueError, match="is not one of ours"):
        frames.receive(io.BytesIO(struct.pack("<I", 2**31)))
    header = b'{"arrays": [["<f4", [1000000, 1000000]]]}'
    with pytest.raises(ValueError, match="is not accepted"):
        frames.receive(io.BytesIO(struct.pack("<I", len(header)) + header))
    header = b'{"arrays": [["|O", [1]]]}'
    with pytest.raises(ValueError, match="is not accepted"):
        frames.receive(io.BytesIO(struct.pack("<I", len(header)) + header))
