"""The `.lil` file: an ONNX file in the fewest bytes, and the ONNX file bit for bit out of it.

    header     magic, version, checksums, sizes
    graph      every byte of the ONNX file that is no tensor's content, by LZMA or DEFLATE
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
from lilliput.codec.plain import pack_graph, quick_look, unpack_plain, unpack_primed
from lilliput.codec.relations import code_relations
from lilliput.codec.tensors import Learned, code_unit
from lilliput.codec.wire import Slot
from lilliput.errors import Refused

MAGIC = b"LIL"
VERSION = 3
OLDEST = 1
DEFAULT_LIMIT = 1 << 29
_START = struct.Struct("<3sBI")
_SIZES_1 = struct.Struct("<IQII")
_CRC = struct.Struct("<I")
_WHOLE = 1 << 19
"""Tensors of so many numbers are coded in one go, since version 2."""
_CONTRADICTION = "the packed file contradicts itself about its sizes"
_MOST_AT_ONCE = 1 << 20
"""Numbers in a piece of code, but for the unit that completes it."""


@dataclass(frozen=True)
class _Header:
    """What the file says before anything else; `total` is its own length, `begin` the graph's."""

    version: int
    begin: int
    total: int
    onnx_crc: int
    onnx_bytes: int
    graph_bytes: int
    packed_graph_bytes: int
    primed: bool


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
    graph, primed = pack_graph(skeleton)
    ledger = Ledger()
    writer = Writer(ledger)
    _code(writer, slots, memoryview(content), VERSION)
    writer.cut()
    sizes = (len(content), len(skeleton), 2 * len(graph) + primed)
    head = _CRC.pack(zlib.crc32(content)) + b"".join(map(varint, sizes))
    body = [head, graph]
    for piece in writer.pieces:
        body += [varint(len(piece) // 4), piece]
    checked = b"".join(body)
    packed = _START.pack(MAGIC, VERSION, zlib.crc32(checked, _seed(VERSION))) + checked
    header = _Header(
        version=VERSION,
        begin=_START.size + len(head),
        total=len(packed),
        onnx_crc=zlib.crc32(content),
        onnx_bytes=len(content),
        graph_bytes=len(skeleton),
        packed_graph_bytes=len(graph),
        primed=primed,
    )
    return packed, _bill(slots, ledger, header)


def _decode(
    packed: bytes | BinaryIO, max_bytes: int, ledger: Ledger | None
) -> tuple[bytearray, list[Slot], _Header]:
    source = io.BytesIO(packed) if isinstance(packed, bytes) else packed
    header = _read_header(source, max_bytes)
    packed_graph = source.read(header.packed_graph_bytes)
    unpack = unpack_primed if header.primed else unpack_plain
    skeleton = unpack(packed_graph, header.graph_bytes)
    slots = wire.missing(skeleton, header.onnx_bytes)
    content = bytearray(header.onnx_bytes)
    whole = memoryview(content)
    wire.paste(skeleton, slots, whole)
    try:
        pieces = _pieces(source, header)
        _code(Reader(pieces, ledger), slots, whole, header.version)
    except (ValueError, LookupError, ArithmeticError, StopIteration) as error:
        # The checksum was right, so somebody crafted it: what they hit upon does not matter.
        raise Refused("the packed weights are damaged") from error
    if zlib.crc32(content) != header.onnx_crc or source.tell() != header.total:
        raise Refused("what was unpacked is not the model that was packed (checksum)")
    return content, slots, header


def _read_header(source: BinaryIO, max_bytes: int) -> _Header:
    start = source.read(_START.size)
    if start[:3] != MAGIC:
        raise Refused("this is not a .lil file (it does not begin with LIL)")
    if len(start) < _START.size:
        raise Refused("the packed file is cut short")
    _, version, crc = _START.unpack(start)
    if not OLDEST <= version <= VERSION:
        raise Refused(
            f"the packed file has version {version}, and this lilliput reads up to {VERSION}",
            hint="pip install --upgrade lilliput",
        )
    found = _seed(version)
    while chunk := source.read(1 << 20):
        found = zlib.crc32(chunk, found)
    if found != crc:
        raise Refused(
            "the packed file is damaged or cut short (checksum)", hint="copy or pack it again"
        )
    total = source.tell()
    source.seek(_START.size)
    onnx_crc, onnx_bytes, graph_bytes, packed_graph, primed = _sizes(source, version)
    header = _Header(
        version=version,
        begin=source.tell(),
        total=total,
        onnx_crc=onnx_crc,
        onnx_bytes=onnx_bytes,
        graph_bytes=graph_bytes,
        packed_graph_bytes=packed_graph,
        primed=primed,
    )
    if onnx_bytes > max_bytes:
        raise Refused(
            f"the packed file unpacks to {onnx_bytes} bytes, more than the limit of {max_bytes}",
            hint="raise the limit if you trust the file: unpack --max-size, or max_bytes=",
        )
    if total < header.begin + packed_graph or graph_bytes > onnx_bytes:
        raise Refused(_CONTRADICTION)
    return header


def _seed(version: int) -> int:
    """What the checksum goes on from: since version 3 it covers the version too."""
    return zlib.crc32(bytes([version])) if version > 2 else 0


def _sizes(source: BinaryIO, version: int) -> tuple[int, int, int, int, bool]:
    """Checksum and length of the ONNX file, lengths of the graph and the packed graph, its way."""
    if version == 1:
        head = source.read(_SIZES_1.size)
        if len(head) < _SIZES_1.size:
            raise Refused(_CONTRADICTION)
        return (*_SIZES_1.unpack(head), False)
    crc = source.read(_CRC.size)
    if len(crc) < _CRC.size:
        raise Refused(_CONTRADICTION)
    onnx_bytes, graph_bytes, packed = (read_varint(source) for _ in range(3))
    return _CRC.unpack(crc)[0], onnx_bytes, graph_bytes, packed >> 1, bool(packed & 1)


def varint(number: int) -> bytes:
    """Seven bits a byte, the low ones first; all bytes but the last have the high bit."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def read_varint(source: BinaryIO) -> int:
    """The number at hand, of at most 63 bits.

    Raises:
        Refused: There is none.
    """
    number = 0
    for shift in range(0, 63, 7):
        byte = source.read(1)
        if not byte:
            break
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return number
    raise Refused(_CONTRADICTION)


def _pieces(source: BinaryIO, header: _Header) -> Iterator[bytes]:
    while source.tell() < header.total:
        if header.version == 1:
            head = source.read(_CRC.size)
            if len(head) < _CRC.size:
                return
            size = 4 * _CRC.unpack(head)[0]
        else:
            size = 4 * read_varint(source)
        if source.tell() + size > header.total:
            raise Refused(_CONTRADICTION)
        yield source.read(size)


def _code(stream: Stream, slots: Sequence[Slot], whole: memoryview, version: int) -> None:
    """All tensors, in the one order that both directions keep."""
    place = {slot.offset: number for number, slot in enumerate(slots)}
    learned = Learned(version)
    uncut = _WHOLE if version > 1 else 0
    done: list[Slot] = []
    since_cut = 0
    for group in groups(slots):
        if stream.ledger is not None:
            stream.ledger.owners = [place[slot.offset] for slot in group]
        parts, related = code_relations(stream, group, done, whole)
        for unit in chain(*(units(part, uncut) for part in parts)):
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
    weights = header.total - header.begin - header.packed_graph_bytes
    given = shared_out(ledger.bits, weights)
    own = header.begin + weights - sum(given.values())
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
