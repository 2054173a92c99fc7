"""The language spoken with a child process: JSON headers and raw arrays, never pickles.

A frame is a 4-byte length, a JSON object of that length, and then the bytes of the arrays that
the object lists under "arrays" as [dtype, shape] pairs.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from lilliput.data.dataset import Array

HEADER_LIMIT = 1 << 26
ARRAY_LIMIT = 1 << 34


def send(stream: BinaryIO, message: dict[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Write one frame and flush it."""
    ready = [np.ascontiguousarray(array) for array in arrays]
    listed = [[array.dtype.str, list(array.shape)] for array in ready]
    header = json.dumps({**message, "arrays": listed}).encode()
    stream.write(struct.pack("<I", len(header)) + header)
    for array in ready:
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[Array]]:
    """Read one frame; raises `EOFError` when the other side has gone, `ValueError` on nonsense."""
    (length,) = struct.unpack("<I", _exactly(stream, 4))
    if length > HEADER_LIMIT:
        raise ValueError(f"a header of {length} bytes is not one of ours")
    message: dict[str, Any] = json.loads(_exactly(stream, length))
    arrays = [_array(stream, np.dtype(dtype), shape) for dtype, shape in message.pop("arrays")]
    return message, arrays


def _array(stream: BinaryIO, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or size > ARRAY_LIMIT:
        raise ValueError(f"an array of {dtype} and {size} bytes is not accepted")
    return np.frombuffer(bytearray(_exactly(stream, size)), dtype).reshape(shape)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    chunks = []
    while count:
        chunk = stream.read(count)
        if not chunk:
            raise EOFError
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)
