"""The `.lil` file: an ONNX file in the fewest bytes, and the ONNX file bit for bit out of it.

    header     magic, version, checksums, sizes
    graph      every byte of the ONNX file that is no tensor's content, by LZMA
    weights    one range-coded stream of all tensors' contents

The format is described for implementers in `docs/reference/lil.md`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from lilliput.codec import wire
from lilliput.codec.bill import GRAPH, HEADER, Bill, Entry, Ledger, shared_out
from lilliput.codec.coder import Reader, Stream, Writer
from lilliput.codec.payload import groups, units
from lilliput.codec.plain import pack_plain, unpack_plain
from lilliput.codec.relations import code_relations
from lilliput.codec.tensors import Learned, code_unit
from lilliput.codec.wire import Slot
from lilliput.errors import Refused

MAGIC = b"LIL"
VERSION = 1
DEFAULT_LIMIT = 1 << 29
_HEADER = struct.Struct("<3sBIIQII")
_CHECKED_FROM = 8
"""The checksum of the file covers what follows itself."""


@dataclass(frozen=True)
class _Header:
    onnx_crc: int
    onnx_bytes: int
    graph_bytes: int
    packed_graph_bytes: int


def encode(content: bytes) -> tuple[bytes, Bill]:
    """Pack the bytes of an ONNX file.

    Returns:
        The `.lil` file, and where its bytes went.

    Raises:
        Refused: A tensor lies in another file.
    """
    slots = wire.payloads(content)
    packed, bill = _encoded(content, slots)
    # A file that is no network's: a quick look at what a general compressor would do with it.
    if len(zlib.compress(content, 1)) < len(packed):
        plain, its_bill = _encoded(content, [])
        if len(plain) < len(packed):
            return plain, its_bill
    return packed, bill


def _encoded(content: bytes, slots: Sequence[Slot]) -> tuple[bytes, Bill]:
    skeleton = wire.cut(content, slots)
    graph = pack_plain(skeleton)
    ledger = Ledger()
    writer = Writer(ledger)
    _code(writer, slots, memoryview(content))
    body = graph + writer.words()
    fields = (zlib.crc32(content), len(content), len(skeleton), len(graph))
    head = _HEADER.pack(MAGIC, VERSION, 0, *fields)
    crc = zlib.crc32(body, zlib.crc32(head[_CHECKED_FROM:]))
    packed = _HEADER.pack(MAGIC, VERSION, crc, *fields) + body
    return packed, _bill(slots, ledger, len(skeleton), len(graph), len(packed))


def decode(packed: bytes, *, max_bytes: int = DEFAULT_LIMIT) -> bytearray:
    """The ONNX file inside a `.lil` file, checked against its checksums.

    Raises:
        Refused: Not such a file, a later version, damaged or cut short, or larger than
            `max_bytes` when unpacked.
    """
    return _decode(packed, max_bytes, None)[0]


def bill_of(packed: bytes, *, max_bytes: int = DEFAULT_LIMIT) -> Bill:
    """Where the bytes of a `.lil` file went; it is decoded for that. Raises as `decode` does."""
    ledger = Ledger()
    _, slots, header = _decode(packed, max_bytes, ledger)
    return _bill(slots, ledger, header.graph_bytes, header.packed_graph_bytes, len(packed))


def unpacked_bytes(packed: bytes, *, max_bytes: int = DEFAULT_LIMIT) -> int:
    """Length of the ONNX file inside, from the checked header alone. Raises as `decode` does."""
    return _read_header(packed, max_bytes).onnx_bytes


def _decode(
    packed: bytes, max_bytes: int, ledger: Ledger | None
) -> tuple[bytearray, list[Slot], _Header]:
    header = _read_header(packed, max_bytes)
    view = memoryview(packed)[_HEADER.size :]
    graph, words = view[: header.packed_graph_bytes], view[header.packed_graph_bytes :]
    skeleton = unpack_plain(graph, header.graph_bytes)
    slots = wire.missing(skeleton, header.onnx_bytes)
    content = bytearray(header.onnx_bytes)
    whole = memoryview(content)
    wire.paste(skeleton, slots, whole)
    try:
        _code(Reader(words, ledger), slots, whole)
    except (ValueError, LookupError, ArithmeticError) as error:
        # The checksum was right, so somebody crafted it: what they hit upon does not matter.
        raise Refused("the packed weights are damaged") from error
    if zlib.crc32(content) != header.onnx_crc:
        raise Refused("what was unpacked is not the model that was packed (checksum)")
    return content, slots, header


def _read_header(packed: bytes, max_bytes: int) -> _Header:
    if packed[:3] != MAGIC:
        raise Refused("this is not a .lil file (it does not begin with LIL)")
    if len(packed) < _HEADER.size:
        raise Refused("the packed file is cut short")
    _, version, crc, onnx_crc, onnx_bytes, graph_bytes, packed_graph = _HEADER.unpack_from(packed)
    if version != VERSION:
        raise Refused(
            f"the packed file has version {version}, and this lilliput reads {VERSION}",
            hint="pip install --upgrade lilliput",
        )
    if zlib.crc32(memoryview(packed)[_CHECKED_FROM:]) != crc:
        raise Refused(
            "the packed file is damaged or cut short (checksum)", hint="copy or pack it again"
        )
    if onnx_bytes > max_bytes:
        raise Refused(
            f"the packed file unpacks to {onnx_bytes} bytes, more than the limit of {max_bytes}",
            hint="raise the limit if you trust the file: --max-size, or max_bytes=",
        )
    left = len(packed) - _HEADER.size - packed_graph
    if left < 0 or left % 4 or graph_bytes > onnx_bytes:
        raise Refused("the packed file contradicts itself about its sizes")
    return _Header(onnx_crc, onnx_bytes, graph_bytes, packed_graph)


def _code(stream: Stream, slots: Sequence[Slot], whole: memoryview) -> None:
    """All tensors, in the one order that both directions keep."""
    place = {slot.offset: number for number, slot in enumerate(slots)}
    learned = Learned()
    done: list[Slot] = []
    for group in groups(slots):
        if stream.ledger is not None:
            stream.ledger.owners = [place[slot.offset] for slot in group]
        parts, related = code_relations(stream, group, done, whole)
        for unit in chain(*map(units, parts)):
            if stream.ledger is not None:
                stream.ledger.owners = [place[slot.offset] for slot in unit.slots]
            code_unit(stream, learned, unit, whole)
        if stream.decoding:
            for relation in related:
                relation.store(whole)
        done += group


def _bill(
    slots: Sequence[Slot], ledger: Ledger, graph_bytes: int, packed_graph: int, total: int
) -> Bill:
    weights = total - _HEADER.size - packed_graph
    given = shared_out(ledger.bits, weights)
    spare = weights - sum(given.values())
    parts: list[dict[str, int]] = [{} for _ in slots]
    for (owner, part), size in given.items():
        if size:
            parts[owner][part] = size
    return Bill(
        entries=(
            Entry(name=HEADER, raw_bytes=0, parts={HEADER: _HEADER.size + spare}),
            Entry(name=GRAPH, raw_bytes=graph_bytes, parts={GRAPH: packed_graph}),
            *(
                Entry(name=slot.name, raw_bytes=slot.bytes, parts=part)
                for slot, part in zip(slots, parts, strict=True)
            ),
        )
    )
