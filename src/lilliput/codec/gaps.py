"""Deep Compression's own file, to compare ours with: gaps and indices under Huffman codes.

Han et al., ICLR 2016 (arXiv 1510.00149), sections 2, 3 and 4. A tensor of few values is a codebook,
the gaps between its entries and the index of each, gaps and indices under a Huffman table of their
own. A gap of b bits that is too short gets a *filler*: an entry of index 0, which stands for zero.
Other tensors are stored as they are.

    magic "DCH", version, CRC-32 of what follows
    number of tensors; for each: shape, kind, length of its content, content

Differs: the width of gaps is chosen for every tensor by its exact cost, where the paper has 8 bits
for convolutions and 5 for dense layers; a codebook whose entries all fit half precision is stored
so; where packed bits are shorter than a Huffman code with its table, they are taken.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.huffman import Symbols, pack_symbols, unpack_symbols
from lilliput.errors import Refused

MAGIC, VERSION = b"DCH", 1
WIDEST = 8
MOST_VALUES = 256
MOST_NUMBERS = 1 << 28
"""Of a tensor: what a damaged file may make us allocate."""
_START = struct.Struct("<3sBI")
_SHARED = struct.Struct("<HBBIBB")
_RAW, _CODES = 0, 1
_PACKED, _HUFFMAN = 0, 1

Tensor = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Gaps:
    """Of a sequence: zeros before each entry, and which entries are fillers."""

    gaps: Symbols
    filler: Flags


def to_gaps(live: Flags, bits: int) -> Gaps:
    """Gaps of at most 2**bits - 1 zeros; what follows the last entry is known by the length.

    Args:
        live: (n,) which places hold an entry.
        bits: Width of a gap, 1 ... 8.
    """
    places = np.flatnonzero(live)
    zeros = np.diff(places, prepend=-1) - 1
    fillers = zeros >> bits
    ends = np.cumsum(fillers + 1) - 1
    total = int(ends[-1]) + 1 if places.size else 0
    gaps = np.full(total, (1 << bits) - 1, np.int64)
    filler = np.ones(total, np.bool_)
    gaps[ends] = zeros & ((1 << bits) - 1)
    filler[ends] = False
    return Gaps(gaps, filler)


def from_gaps(gaps: Symbols, count: int) -> Symbols:
    """Places of the entries, fillers among them.

    Raises:
        Refused: They lie beyond `count`.
    """
    places: Symbols = np.cumsum(gaps + 1) - 1
    if places.size and int(places[-1]) >= count:
        raise Refused("the gaps lead beyond the tensor")
    return places


def pack_tensors(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, dict[str, int]]]:
    """The file, and {name: {part: bytes}}, which with the header's 10 bytes add up to its length.

    Args:
        tensors: In the order in which they come back; their names are not stored.
    """
    made, bill = [], {}
    for name, tensor in tensors.items():
        coded = _coded(tensor)
        kind = _RAW if coded is None or sum(map(len, coded.values())) >= tensor.nbytes else _CODES
        parts = {"values": tensor.tobytes()} if coded is None or kind == _RAW else coded
        content = b"".join(parts.values())
        head = struct.pack(f"<B{tensor.ndim}IBI", tensor.ndim, *tensor.shape, kind, len(content))
        made.append(head + content)
        bill[name] = {"header": len(head), **{part: len(held) for part, held in parts.items()}}
    checked = struct.pack("<H", len(made)) + b"".join(made)
    return _START.pack(MAGIC, VERSION, zlib.crc32(checked)) + checked, bill


def unpack_tensors(packed: bytes) -> list[Tensor]:
    """The tensors, bit for bit.

    Raises:
        Refused: Not such a file, of another version, damaged or cut short.
    """
    if packed[:3] != MAGIC or len(packed) < _START.size:
        raise Refused("this is not a file of gaps and Huffman codes")
    _, version, crc = _START.unpack_from(packed)
    if version != VERSION:
        raise Refused(f"the file has version {version}, and this lilliput reads {VERSION}")
    if zlib.crc32(packed[_START.size :]) != crc:
        raise Refused("the file is damaged or cut short (checksum)")
    try:
        return _tensors(packed)
    except (struct.error, ValueError, IndexError) as error:
        # The checksum was right, so somebody crafted it.
        raise Refused("the file is damaged") from error


def _tensors(packed: bytes) -> list[Tensor]:
    (count,) = struct.unpack_from("<H", packed, _START.size)
    at, found = _START.size + 2, []
    for _ in range(count):
        sides = packed[at]
        *shape, kind, length = struct.unpack_from(f"<{sides}IBI", packed, at + 1)
        at += struct.calcsize(f"<B{sides}IBI")
        content = packed[at : at + length]
        at += length
        flat = np.frombuffer(content, "<f4") if kind == _RAW else _decoded(content, shape)
        found.append(flat.reshape(shape))
    return found


def best_width(live: Flags, index_bits: int) -> int:
    """The width of gaps that costs least, before any Huffman code."""
    return min(
        range(1, WIDEST + 1), key=lambda bits: to_gaps(live, bits).gaps.size * (bits + index_bits)
    )


def _coded(tensor: Tensor) -> dict[str, bytes] | None:
    """Codebook, gaps and indices; None where the values are too many, or zeros have signs."""
    flat = tensor.ravel()
    live = flat != 0
    # In bits, so that a number that is none comes back too.
    book = np.unique(flat[live].view(np.uint32))
    signed = bool((flat[~live].view(np.uint32) != 0).any())
    if not 0 < book.size < MOST_VALUES or signed:
        return None
    single = book.view(np.float32)
    with np.errstate(over="ignore"):
        half = single.astype(np.float16)
    narrow = bool((half.astype(np.float32).view(np.uint32) == book).all())
    index_bits = max(1, int(book.size).bit_length())
    width = best_width(live, index_bits)
    made = to_gaps(live, width)
    indices = np.zeros(made.gaps.size, np.int64)
    # Index 0 is zero itself, which fillers need.
    indices[~made.filler] = np.searchsorted(book, flat[live].view(np.uint32)) + 1
    ways, streams = [], {}
    for part, symbols, bits in (("gaps", made.gaps, width), ("indices", indices, index_bits)):
        way, streams[part] = _stream(symbols, bits)
        ways.append(way)
    head = _SHARED.pack(book.size, narrow, width, made.gaps.size, *ways)
    return {"codes": head, "codebook": (half if narrow else single).tobytes(), **streams}


def _stream(symbols: Symbols, bits: int) -> tuple[int, bytes]:
    huffman, packed = pack_symbols(symbols, 1 << bits), _packed(symbols, bits)
    return (_HUFFMAN, huffman) if len(huffman) < len(packed) else (_PACKED, packed)


def _packed(symbols: Symbols, bits: int) -> bytes:
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((symbols[:, None] >> shifts & 1).astype(np.uint8).ravel()).tobytes()


def _unpacked(packed: bytes, way: int, bits: int, count: int) -> tuple[Symbols, int]:
    if way == _HUFFMAN:
        return unpack_symbols(packed, 1 << bits, count)
    used = (count * bits + 7) // 8
    flags = np.unpackbits(np.frombuffer(packed[:used], np.uint8), count=count * bits)
    return flags.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits - 1, -1, -1)), used


def _decoded(content: bytes, shape: list[int]) -> Tensor:
    size, narrow, width, entries, *ways = _SHARED.unpack_from(content)
    count = math.prod(shape)
    if count > MOST_NUMBERS or entries > count:
        raise Refused("a tensor of the file contradicts itself about its size")
    at = _SHARED.size
    kind = np.dtype("<f2" if narrow else "<f4")
    book = np.frombuffer(content, kind, size, at).astype(np.float32)
    at += size * kind.itemsize
    gaps, used = _unpacked(content[at:], ways[0], width, entries)
    index_bits = max(1, int(size).bit_length())
    indices, _ = _unpacked(content[at + used :], ways[1], index_bits, entries)
    flat = np.zeros(count, np.float32)
    flat[from_gaps(gaps, flat.size)] = np.concatenate([np.zeros(1, np.float32), book])[indices]
    return flat
