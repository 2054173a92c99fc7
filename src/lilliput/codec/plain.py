"""Bytes that are not weights: the graph, and the odd tensor. LZMA, bounded on the way back."""

from __future__ import annotations

import lzma
import zlib

from lilliput.errors import Refused

# No literal context and no alignment: graphs are full of short names, and small.
_FILTERS = [
    {
        "id": lzma.FILTER_LZMA1,
        "preset": 9 | lzma.PRESET_EXTREME,
        "lc": 0,
        "lp": 0,
        "pb": 0,
        "dict_size": 1 << 20,
    }
]


_SAMPLE, _SAMPLES = 1 << 14, 8


def quick_look(content: bytes) -> float:
    """About how many bytes a fast general compressor would make of this, judged by samples."""
    step = max(_SAMPLE, len(content) // _SAMPLES)
    sample = b"".join(content[at : at + _SAMPLE] for at in range(0, len(content), step))
    return len(zlib.compress(sample, 1)) * len(content) / max(1, len(sample))


def pack_plain(content: bytes) -> bytes:
    """A raw LZMA1 stream, without any header."""
    return lzma.compress(content, lzma.FORMAT_RAW, filters=_FILTERS)


def unpack_plain(packed: bytes | memoryview, size: int) -> bytes:
    """The `size` bytes that were packed; never more are made.

    Raises:
        Refused: It is not such a stream, or not of that size.
    """
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        content = decoder.decompress(packed, max_length=size + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise Refused("the packed graph is damaged") from error
    if len(content) != size:
        raise Refused(f"the packed graph has {len(content)} bytes where it declares {size}")
    return content
