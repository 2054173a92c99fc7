"""Bytes that are not weights: the graph, and the odd tensor; bounded on the way back.

LZMA; or, of a small graph, DEFLATE with a dictionary of what graphs are made of.
"""

from __future__ import annotations

import lzma
import zlib

from lilliput.codec.phrases import PHRASES
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


def pack_graph(skeleton: bytes) -> tuple[bytes, bool]:
    """The shorter of two ways, and whether it is that which begins with known phrases."""
    plain, primed = pack_plain(skeleton), pack_primed(skeleton)
    return (primed, True) if len(primed) < len(plain) else (plain, False)


def pack_primed(content: bytes) -> bytes:
    """A raw DEFLATE stream with a preset dictionary: of a small graph, most is a common phrase."""
    strategies = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED)
    made = [
        zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy, PHRASES) for strategy in strategies
    ]
    return min((each.compress(content) + each.flush() for each in made), key=len)


def unpack_primed(packed: bytes | memoryview, size: int) -> bytes:
    """As `unpack_plain`, of what `pack_primed` made."""
    decoder = zlib.decompressobj(-15, zdict=PHRASES)
    try:
        content = decoder.decompress(packed, size + 1)
    except zlib.error as error:
        raise Refused("the packed graph is damaged") from error
    if len(content) != size:
        raise Refused(f"the packed graph has {len(content)} bytes where it declares {size}")
    return content
