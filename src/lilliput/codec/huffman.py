"""Canonical Huffman codes of at most 15 bits, as Deep Compression stores its indices.

Han et al., ICLR 2016 (arXiv 1510.00149), section 4. Of a table only the lengths are stored, four
bits each. Our own files do not use it: it is here to be compared with (`gaps`, `rivals`).
Differs: the paper does not say how long a code may be; a length fits four bits here, and where
frequencies call for longer codes they are flattened until none is.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lilliput.errors import Refused

LONGEST = 15
Symbols = NDArray[np.int64]


def code_lengths(frequencies: Sequence[int]) -> list[int]:
    """Bits of each symbol's code; 0 for one that does not occur, 1 for one that is alone."""
    weights = {symbol: count for symbol, count in enumerate(frequencies) if count > 0}
    lengths = [0] * len(frequencies)
    if len(weights) == 1:
        lengths[next(iter(weights))] = 1
        return lengths
    while weights:
        depths = _depths(weights)
        if max(depths.values()) <= LONGEST:
            for symbol, depth in depths.items():
                lengths[symbol] = depth
            return lengths
        weights = {symbol: weight // 2 + 1 for symbol, weight in weights.items()}
    return lengths


def _depths(weights: dict[int, int]) -> dict[int, int]:
    """Depths in the tree that joins the two lightest over and over; ties by order of making."""
    heap: list[tuple[int, int, tuple[int, ...]]]
    heap = [(weight, order, (symbol,)) for order, (symbol, weight) in enumerate(weights.items())]
    heapq.heapify(heap)
    depths = dict.fromkeys(weights, 0)
    made = len(heap)
    while len(heap) > 1:
        (one, _, left), (other, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in (*left, *right):
            depths[symbol] += 1
        heapq.heappush(heap, (one + other, made, (*left, *right)))
        made += 1
    return depths


def canonical_codes(lengths: Sequence[int]) -> dict[int, tuple[int, int]]:
    """{symbol: (code, bits)}: shorter codes first, equal ones by symbol.

    Raises:
        Refused: No prefix code has such lengths.
    """
    code, last = 0, 0
    codes: dict[int, tuple[int, int]] = {}
    for length, symbol in sorted((n, symbol) for symbol, n in enumerate(lengths) if n):
        code <<= length - last
        if code >> length:
            raise Refused("the Huffman table is damaged")
        codes[symbol] = code, length
        code, last = code + 1, length
    return codes


def pack_symbols(symbols: Symbols, size: int) -> bytes:
    """Symbols of 0 ... size - 1: their lengths, two in a byte, then their codes, to whole bytes."""
    lengths = code_lengths(np.bincount(symbols, minlength=size).tolist())
    codes = canonical_codes(lengths)
    words = {symbol: f"{code:0{length}b}" for symbol, (code, length) in codes.items()}
    bits = "".join(map(words.__getitem__, symbols.tolist()))
    return _nibbles(lengths) + np.packbits(np.frombuffer(bits.encode(), np.uint8) & 1).tobytes()


def unpack_symbols(packed: bytes, size: int, count: int) -> tuple[Symbols, int]:
    """`count` symbols, and how many bytes they took; whatever follows is not looked at.

    Raises:
        Refused: Damaged or cut short.
    """
    begin = (size + 1) // 2
    table = np.frombuffer(packed[:begin], np.uint8)
    if table.size < begin:
        raise Refused("the Huffman table is cut short")
    lengths = np.stack([table & 15, table >> 4], 1).ravel()[:size].tolist()
    known = {(length, code): symbol for symbol, (code, length) in canonical_codes(lengths).items()}
    bits = np.unpackbits(np.frombuffer(packed[begin:], np.uint8)).tolist()
    found = np.zeros(count, np.int64)
    at = 0
    for place in range(count):
        code = length = 0
        while (length, code) not in known or not length:
            if at == len(bits) or length > LONGEST:
                raise Refused("the Huffman code is damaged or cut short")
            code, length, at = code << 1 | bits[at], length + 1, at + 1
        found[place] = known[length, code]
    return found, begin + (at + 7) // 8


def _nibbles(lengths: Sequence[int]) -> bytes:
    even = np.zeros(len(lengths) + len(lengths) % 2, np.uint8)
    even[: len(lengths)] = lengths
    return (even[0::2] | even[1::2] << 4).tobytes()
