"""What other coders make of the same file, to hold a packed one to."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.bill import GRAPH, Bill
from lilliput.codec.gaps import pack_tensors, unpack_tensors
from lilliput.errors import VerificationFailed
from lilliput.noun import Noun

GZIP, XZ, HUFFMAN = "gzip -9", "xz -9e", "Huffman and gaps (Deep Compression)"


class Rival(Noun):
    """A coder's bytes, and what the packed file spends on what that coder holds."""

    name: str
    bytes: int
    ours: int

    @property
    def ratio(self) -> float:
        """How many times as large as ours."""
        return self.bytes / self.ours

    def as_json(self) -> dict[str, Any]:
        """Every figure as plain values."""
        return {**self.model_dump(), "ratio": self.ratio}


def rivals(
    content: bytes, tensors: Mapping[str, NDArray[np.generic]], bill: Bill
) -> tuple[Rival, ...]:
    """The ONNX file by gzip and by xz, and its tensors by Deep Compression's code.

    Args:
        content: The ONNX file.
        tensors: All of it; those that single precision does not hold are left out there.
        bill: Of the file that `content` was packed to.
    """
    return (
        Rival(name=GZIP, bytes=gzip_bytes(content), ours=bill.bytes),
        Rival(name=XZ, bytes=xz_bytes(content), ours=bill.bytes),
        Rival(name=HUFFMAN, bytes=huffman_bytes(tensors), ours=without_graph(bill)),
    )


def gzip_bytes(content: bytes) -> int:
    return len(gzip.compress(content, 9, mtime=0))


def xz_bytes(content: bytes) -> int:
    return len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


def without_graph(bill: Bill) -> int:
    """Bytes of a packed file without the graph, which Deep Compression's code does not store."""
    return bill.bytes - sum(entry.bytes for entry in bill.entries if entry.name == GRAPH)


def huffman_bytes(tensors: Mapping[str, NDArray[np.generic]]) -> int:
    """Bytes of the file of gaps and Huffman codes, from which every tensor came back.

    Integers and half precision are coded by their values, and count as they are where that is less.
    Decoding is plain Python: a second for some hundred thousand weights.

    Raises:
        VerificationFailed: A tensor does not come back.
    """
    held = {name: t for name, t in tensors.items() if np.can_cast(t.dtype, np.float32)}
    floats = {name: tensor.astype(np.float32) for name, tensor in held.items()}
    packed, parts = pack_tensors(floats)
    for name, back in zip(floats, unpack_tensors(packed), strict=True):
        if floats[name].tobytes() != back.tobytes():
            raise VerificationFailed(f"{name!r} does not come back from its Huffman codes")
    spent = {name: sum(sizes.values()) - sizes["header"] for name, sizes in parts.items()}
    return len(packed) - sum(max(0, spent[name] - held[name].nbytes) for name in held)
