"""The `.lil` file: an ONNX file in the fewest bytes, and the ONNX file bit for bit out of it.

    header     magic, version, checksums, sizes
    graph      every byte of the ONNX file that is no tensor's content, by LZMA
    weights    the contents of all tensors, range-coded, in pieces of bounded size

The format is described for implementers in `docs/reference/lil.md`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from lilliput.codec import wire
from lilliput.codec.bill import GRAPH, HEADER, Bill, Entry, Ledger, shared_out
from lilliput.codec.coder import Reader, Stream, Writer
from lilliput.codec.payload import groups, units
from lilliput.codec.plain import pack_plain, quick_look, unpack_plain
from lilliput.codec.relations import code_relations
from lilliput.codec.tensors import Learned, code_unit
from lilliput.codec.wire import Slot
from lilliput.errors import Refused

MAGIC = b"LIL"
VERSION = 1
DEFAULT_LIMIT = 1 << 29
_HEADER = struct.Struct("<3sBIIQII")
_PIECE = struct.Struct("<I")
_MOST_AT_ONCE = 1 << 20
"""Numbers in a piece of code, but for the unit that completes it."""
_CHECKED_FROM = 8
"""The checksum of the file covers what follows itself."""


@dataclass(frozen=True)
class _Header:
    """What the file says before anything else, and `total`, its own length."""

    total: int
    onnx_crc: int
    onnx_bytes: int
    graph_bytes: int
    packed_graph_bytes: int

    def packed(self, crc: int) -> bytes:
        """The header's bytes, with the checksum of all that follows it."""
        sizes = (self.onnx_bytes, self.graph_bytes, self.packed_graph_bytes)
        return _HEADER.pack(MAGIC, VERSION, crc, self.onnx_crc, *sizes)


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
    if quick_look(content) < len(packed):
        plain, its_bill = _encoded(content, [])
        if len(plain) < len(packed):
            return plain, its_bill
    return packed, bill


def decode(packed: bytes | BinaryIO, *, max_bytes: int = DEFAULT_LIMIT) -> bytearray:
    """The ONNX file inside a `.lil` file, checked against its checksums.

    Args:
        packed: The file's bytes; or the open file, of which no more than a piece is then held
            in memory.
        max_bytes: The longest ONNX file to make.

    Raises:
        Refused: Not such a file, a later version, damaged or cut short, or larger than
            `max_bytes` when unpacked.
    """
    return _decode(packed, max_bytes, None)[0]


def decode_with_bill(
    packed: bytes | BinaryIO, *, max_bytes: int = DEFAULT_LIMIT
) -> tuple[bytearray, Bill]:
    """As `decode`, and where the bytes of the `.lil` file went."""
    ledger = Ledger()
    content, slots, header = _decode(packed, max_bytes, ledger)
    return content, _bill(slots, ledger, header)


def _encoded(content: bytes, slots: Sequence[Slot]) -> tuple[bytes, Bill]:
    skeleton = wire.cut(content, slots)
    graph = pack_plain(skeleton)
    ledger = Ledger()
    writer = Writer(ledger)
    _code(writer, slots, memoryview(content))
    writer.cut()
    body = [graph]
    for piece in writer.pieces:
        body += [_PIECE.pack(len(piece) // 4), piece]
    total = _HEADER.size + sum(map(len, body))
    header = _Header(total, zlib.crc32(content), len(content), len(skeleton), len(graph))
    unsigned = b"".join([header.packed(0), *body])
    crc = zlib.crc32(memoryview(unsigned)[_CHECKED_FROM:])
    packed = header.packed(crc) + unsigned[_HEADER.size :]
    return packed, _bill(slots, ledger, header)


def _decode(
    packed: bytes | BinaryIO, max_bytes: int, ledger: Ledger | None
) -> tuple[bytearray, list[Slot], _Header]:
    source = io.BytesIO(packed) if isinstance(packed, bytes) else packed
    header = _read_header(source, max_bytes)
    skeleton = unpack_plain(source.read(header.packed_graph_bytes), header.graph_bytes)
    slots = wire.missing(skeleton, header.onnx_bytes)
    content = bytearray(header.onnx_bytes)
    whole = memoryview(content)
    wire.paste(skeleton, slots, whole)
    try:
        _code(Reader(_pieces(source, header.total), ledger), slots, whole)
    except (ValueError, LookupError, ArithmeticError, StopIteration) as error:
        # The checksum was right, so somebody crafted it: what they hit upon does not matter.
        raise Refused("the packed weights are damaged") from error
    if zlib.crc32(content) != header.onnx_crc or source.tell() != header.total:
        raise Refused("what was unpacked is not the model that was packed (checksum)")
    return content, slots, header


def _read_header(source: BinaryIO, max_bytes: int) -> _Header:
    head = source.read(_HEADER.size)
    if head[:3] != MAGIC:
        raise Refused("this is not a .lil file (it does not begin with LIL)")
    if len(head) < _HEADER.size:
        raise Refused("the packed file is cut short")
    _, version, crc, onnx_crc, onnx_bytes, graph_bytes, packed_graph = _HEADER.unpack(head)
    if version != VERSION:
        raise Refused(
            f"the packed file has version {version}, and this lilliput reads {VERSION}",
            hint="pip install --upgrade lilliput",
        )
    found = zlib.crc32(head[_CHECKED_FROM:])
    while chunk := source.read(1 << 20):
        found = zlib.crc32(chunk, found)
    if found != crc:
        raise Refused(
            "the packed file is damaged or cut short (checksum)", hint="copy or pack it again"
        )
    if onnx_bytes > max_bytes:
        raise Refused(
            f"the packed file unpacks to {onnx_bytes} bytes, more than the limit of {max_bytes}",
            hint="raise the limit if you trust the file: unpack --max-size, or max_bytes=",
        )
    total = source.tell()
    if total < _HEADER.size + packed_graph or graph_bytes > onnx_bytes:
        raise Refused("the packed file contradicts itself about its sizes")
    source.seek(_HEADER.size)
    return _Header(total, onnx_crc, onnx_bytes, graph_bytes, packed_graph)


def _pieces(source: BinaryIO, total: int) -> Iterator[bytes]:
    while True:
        head = source.read(_PIECE.size)
        if len(head) < _PIECE.size:
            return
        size = 4 * _PIECE.unpack(head)[0]
        if source.tell() + size > total:
            raise Refused("the packed file contradicts itself about its sizes")
        yield source.read(size)


def _code(stream: Stream, slots: Sequence[Slot], whole: memoryview) -> None:
    """All tensors, in the one order that both directions keep."""
    place = {slot.offset: number for number, slot in enumerate(slots)}
    learned = Learned()
    done: list[Slot] = []
    since_cut = 0
    for group in groups(slots):
        if stream.ledger is not None:
            stream.ledger.owners = [place[slot.offset] for slot in group]
        parts, related = code_relations(stream, group, done, whole)
        for unit in chain(*map(units, parts)):
            if since_cut >= _MOST_AT_ONCE:
                stream.cut()
                since_cut = 0
            if stream.ledger is not None:
                stream.ledger.owners = [place[slot.offset] for slot in unit.slots]
            code_unit(stream, learned, unit, whole)
            since_cut += len(unit.slots) * unit.count
        if stream.decoding:
            for relation in related:
                relation.store(whole)
        done += group


def _bill(slots: Sequence[Slot], ledger: Ledger, header: _Header) -> Bill:
    weights = header.total - _HEADER.size - header.packed_graph_bytes
    given = shared_out(ledger.bits, weights)
    own = _HEADER.size + weights - sum(given.values())
    parts: list[dict[str, int]] = [{} for _ in slots]
    for (owner, part), size in given.items():
        if size:
            parts[owner][part] = size
    graph = {GRAPH: header.packed_graph_bytes}
    return Bill(
        entries=(
            Entry(name=HEADER, raw_bytes=0, parts={HEADER: own}),
            Entry(name=GRAPH, raw_bytes=header.graph_bytes, parts=graph),
            *(
                Entry(name=slot.name, raw_bytes=slot.bytes, parts=part)
                for slot, part in zip(slots, parts, strict=True)
            ),
        )
    )
