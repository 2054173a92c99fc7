"""Where an ONNX file keeps its numbers: a walk over protobuf's wire format that builds nothing.

A file is cut into its *skeleton* (every byte that is not the content of a tensor) and *payloads*
(the contents). Since no message is parsed into objects and written again, putting the payloads
back gives the very bytes that were cut, whoever wrote them.

The walk reads a skeleton in the same way as a whole file: it is told which of the two it has, and
where a payload belongs a skeleton simply has nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from lilliput.errors import Refused

# Numbers of the fields that lead from a model to its tensors, by message (onnx.proto3).
_MODEL = {7: "graph", 25: "function"}
_GRAPH = {1: "node", 5: "tensor", 15: "sparse"}
_FUNCTION = {7: "node"}
_NODE = {5: "attribute"}
_ATTRIBUTE = {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}
_SPARSE = {1: "tensor", 2: "tensor"}
_CHILDREN = {
    "model": _MODEL,
    "graph": _GRAPH,
    "function": _FUNCTION,
    "node": _NODE,
    "attribute": _ATTRIBUTE,
    "sparse": _SPARSE,
}
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA, _LOCATION = 1, 2, 4, 8, 9, 14
_EXTERNAL = 1
_VARINT, _LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}
_DEEPEST, _WORTH_A_LOOK = 64, 16
MOST_TENSORS = 1 << 16
"""Further ones stay where they are, so that no file takes longer than its size warrants."""

MOST_AXES = 64
"""Of a tensor whose content is cut out; numpy has no more either."""

BITS = {1: 32, 2: 8, 3: 8, 6: 32, 10: 16, 11: 64, 12: 32, 16: 16, 21: 4, 22: 4}
"""Bits of an element, by TensorProto.DataType, of the types whose contents are cut out."""


@dataclass(frozen=True)
class Slot:
    """The place of one payload: `offset` and `bytes` count in the whole file."""

    name: str
    data_type: int
    shape: tuple[int, ...]
    offset: int
    bytes: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)


class Unreadable(Exception):
    """The bytes are not a protobuf message of the expected kind."""


def payloads(content: bytes) -> list[Slot]:
    """The payloads of a whole ONNX file, in the order of their bytes; empty if it is not one.

    Raises:
        Refused: A tensor lies in another file.
    """
    return _found(_Walk(content, len(content), cut=False))


def missing(skeleton: bytes, total: int) -> list[Slot]:
    """The payloads that a skeleton lacks, for a file of `total` bytes.

    Raises:
        Refused: Skeleton and total contradict each other.
    """
    if len(skeleton) == total:
        return []
    found = _found(_Walk(skeleton, total, cut=True))
    if sum(slot.bytes for slot in found) != total - len(skeleton):
        raise Refused("the graph of the packed file does not have the places its tensors need")
    return found


def cut(content: bytes, slots: Iterable[Slot]) -> bytes:
    """All bytes of the file that belong to no slot."""
    view, kept, at = memoryview(content), [], 0
    for slot in slots:
        kept.append(view[at : slot.offset])
        at = slot.offset + slot.bytes
    kept.append(view[at:])
    return b"".join(kept)


def paste(skeleton: bytes, slots: Iterable[Slot], whole: memoryview) -> None:
    """Put the skeleton's bytes where they belong in `whole`, around the slots."""
    view, taken, at = memoryview(skeleton), 0, 0
    for slot in slots:
        length = slot.offset - at
        whole[at : slot.offset] = view[taken : taken + length]
        taken += length
        at = slot.offset + slot.bytes
    whole[at:] = view[taken:]


def _found(walk: _Walk) -> list[Slot]:
    try:
        walk.message("model", walk.total, 0)
    except Unreadable:
        return []
    return walk.found


class _Walk:
    """A cursor in the bytes at hand; `gap` is how far ahead it is in the whole file."""

    def __init__(self, content: bytes, total: int, *, cut: bool) -> None:
        self.content, self.total, self.cut = content, total, cut
        self.here = self.gap = 0
        self.found: list[Slot] = []

    def message(self, kind: str, end: int, depth: int) -> None:
        """Find every payload inside the message that ends at `end` (of the whole file)."""
        if depth > _DEEPEST:
            raise Unreadable
        if kind == "tensor":
            self._tensor(end)
            return
        children, content = _CHILDREN[kind], self.content
        while self.here + self.gap < end:
            # Most fields are short texts that lead nowhere.
            short = content[self.here : self.here + 2]
            if (
                len(short) == 2
                and short[0] & 0x87 == _LENGTH
                and short[1] < 0x80
                and short[0] >> 3 not in children
            ):
                self.here += 2 + short[1]
                continue
            self._field(self._varint(), children, end, depth)
        self._must(self.here + self.gap == end)

    def _field(self, tag: int, children: Mapping[int, str], end: int, depth: int) -> None:
        if tag & 7 != _LENGTH or tag >> 3 not in children:
            self._skip(tag & 7, end)
            return
        inner = self._end(end)
        if inner - self.here - self.gap < _WORTH_A_LOOK:
            self.here = inner - self.gap
        else:
            self.message(children[tag >> 3], inner, depth + 1)

    def _tensor(self, end: int) -> None:
        dims: list[int] = []
        data_type, name, slot = 0, "", None
        while self.here + self.gap < end:
            tag = self._varint()
            number, wire = tag >> 3, tag & 7
            if number == _DIMS:
                dims += self._numbers(wire, end)
            elif number == _DATA_TYPE and wire == _VARINT:
                data_type = self._varint()
            elif number == _NAME and wire == _LENGTH:
                name = self._take(self._end(end)).decode(errors="replace")
            elif number == _LOCATION and wire == _VARINT:
                _must_be_inside(self._varint(), name)
            elif number in (_RAW_DATA, _FLOAT_DATA) and wire == _LENGTH and slot is None:
                slot = self._payload(number, data_type, dims, self._end(end))
            else:
                self._skip(wire, end)
        self._must(self.here + self.gap == end)
        if slot is not None:
            # The name often follows the contents.
            self.found.append(Slot(name, slot.data_type, slot.shape, slot.offset, slot.bytes))

    def _numbers(self, wire: int, end: int) -> list[int]:
        if wire == _VARINT:
            return [self._varint()]
        self._must(wire == _LENGTH)
        stop, found = self._end(end), []
        while self.here + self.gap < stop:
            found.append(self._varint())
        self._must(self.here + self.gap == stop)
        return found

    def _payload(self, number: int, data_type: int, dims: list[int], stop: int) -> Slot | None:
        begin = self.here + self.gap
        full = len(self.found) >= MOST_TENSORS
        if full or not _is_content(number, data_type, dims, stop - begin):
            self._take(stop)
            return None
        if self.cut:
            self.gap += stop - begin
        else:
            self._take(stop)
        return Slot("", data_type, tuple(dims), begin, stop - begin)

    def _must(self, holds: bool) -> None:
        if not holds:
            raise Unreadable

    def _varint(self) -> int:
        content, here = self.content, self.here
        try:
            value = content[here]
            if value > 0x7F:
                value &= 0x7F
                for shift in range(7, 70, 7):
                    here += 1
                    value |= (content[here] & 0x7F) << shift
                    if content[here] < 0x80:
                        break
                else:
                    raise Unreadable
        except IndexError:
            raise Unreadable from None
        self.here = here + 1
        return value

    def _end(self, end: int) -> int:
        """Where the field that begins with its length ends."""
        length = self._varint()
        stop = self.here + self.gap + length
        self._must(stop <= end)
        return stop

    def _take(self, stop: int) -> bytes:
        taken = self.content[self.here : stop - self.gap]
        self._must(len(taken) == stop - self.gap - self.here)
        self.here = stop - self.gap
        return taken

    def _skip(self, wire: int, end: int) -> None:
        if wire == _VARINT:
            self._varint()
        elif wire == _LENGTH:
            self.here = self._end(end) - self.gap
        else:
            self._must(wire in _FIXED)
            self.here += _FIXED[wire]


def _must_be_inside(location: int, name: str) -> None:
    if location == _EXTERNAL:
        raise Refused(
            f"tensor {name!r} lies in another file, and only self-contained ONNX files are packed",
            hint="make it one file: onnx.save(onnx.load('model.onnx'), 'whole.onnx')",
        )


def _is_content(number: int, data_type: int, dims: list[int], length: int) -> bool:
    """Whether these bytes are the elements that type and shape call for, and are worth a slot."""
    bits = BITS.get(data_type)
    if bits is None or len(dims) > MOST_AXES or (number == _FLOAT_DATA and data_type != 1):
        return False
    return length > 0 and length == -(-prod(dims) * bits // 8)
