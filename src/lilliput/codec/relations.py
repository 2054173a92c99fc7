"""Tensors that follow from others: copies, and the scales that a quantizer multiplied.

In a quantized network the scale of a bias is that of the input times that of the weight, to the
last bit; such a tensor is two references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lilliput.codec.coder import Stream
from lilliput.codec.payload import has_few_values
from lilliput.codec.wire import Slot
from lilliput.errors import Refused

_SINGLE = 1
_OWN, _COPY, _PRODUCT, _FEW = range(4)
_NEAR = 8
"""How far back a product looks for its vector: the weight's scale is written beside the bias's."""


@dataclass(frozen=True)
class Relation:
    """A tensor equal to `source`, or to `source` times the single number `factor`."""

    slot: Slot
    source: Slot
    factor: Slot | None = None

    def store(self, whole: memoryview) -> None:
        """Write the tensor into the file, its source being there already."""
        made = _content(self.source, whole)
        if self.factor is not None:
            with np.errstate(all="ignore"):
                product = _numbers(self.source, whole) * _numbers(self.factor, whole)
            made = memoryview(product.tobytes())
        _content(self.slot, whole)[:] = made


def code_relations(
    stream: Stream, group: Sequence[Slot], done: Sequence[Slot], whole: memoryview
) -> tuple[tuple[list[Slot], list[Slot]], list[Relation]]:
    """Tell apart the tensors of a group that are coded and those that follow from them.

    Tensors of few different values are coded apart from the others, since a codebook suits them.

    Args:
        stream: Either direction.
        group: Tensors of one type and shape.
        done: Those that are known already; the single numbers among them may be factors.
        whole: The ONNX file, as far as it is known.
    """
    factors = [s for s in done if s.data_type == _SINGLE and s.count == 1]
    numbers = {factor: number for number, factor in enumerate(factors)}
    found: dict[Slot, Relation] = {}
    few: set[Slot] = set()
    if not stream.decoding:
        found = _relations(group, factors, whole)
        few = {slot for slot in group if slot not in found and has_few_values(slot, whole)}
    stream.book_as("context", 0)
    if len(group) < 2 or not stream.number(int(bool(found or few)), 2):
        return (list(group), []), []
    own: list[Slot] = []
    places: dict[Slot, int] = {}
    parts: tuple[list[Slot], list[Slot]] = ([], [])
    related: list[Relation] = []
    told = [_FEW if slot in few else _kind(found.get(slot)) for slot in group]
    kinds = stream.uniform(np.array(told, np.int32), len(group), 4).tolist()
    for slot, kind in zip(group, kinds, strict=True):
        if kind in (_OWN, _FEW):
            places[slot] = len(own)
            own.append(slot)
            parts[kind == _FEW].append(slot)
            continue
        if not own or (kind == _PRODUCT and not factors):
            raise Refused("the packed weights are damaged")
        relation = found.get(slot)
        source = stream.number(places[relation.source] if relation else 0, len(own))
        factor = None
        if kind == _PRODUCT:
            number = numbers[relation.factor] if relation and relation.factor else 0
            factor = factors[stream.number(number, len(factors))]
        related.append(Relation(slot, own[source], factor))
    return parts, related


def _kind(relation: Relation | None) -> int:
    if relation is None:
        return _OWN
    return _COPY if relation.factor is None else _PRODUCT


def _relations(
    group: Sequence[Slot], factors: Sequence[Slot], whole: memoryview
) -> dict[Slot, Relation]:
    found: dict[Slot, Relation] = {}
    seen: dict[bytes, Slot] = {}
    own: list[Slot] = []
    scales = np.array([_numbers(factor, whole)[0] for factor in factors], np.float32)
    for slot in group:
        content = bytes(_content(slot, whole))
        relation = None
        if slot.bytes >= _NEAR and content in seen:
            relation = Relation(slot, seen[content])
        elif slot.data_type == _SINGLE and slot.count > 1:
            relation = _product(slot, own[-_NEAR:], factors, scales, whole)
        if relation is None:
            own.append(slot)
            seen[content] = slot
        else:
            found[slot] = relation
    return found


def _product(
    slot: Slot,
    sources: Sequence[Slot],
    factors: Sequence[Slot],
    scales: NDArray[np.float32],
    whole: memoryview,
) -> Relation | None:
    wanted = _numbers(slot, whole)
    if not np.isfinite(wanted).all():
        # Which bits a product that is no number has differs between processors.
        return None
    with np.errstate(all="ignore"):
        for source in reversed(sources):
            vector = _numbers(source, whole)
            for number in np.flatnonzero(scales * vector[0] == wanted[0]).tolist():
                if (vector * scales[number]).tobytes() == wanted.tobytes():
                    return Relation(slot, source, factors[number])
    return None


def _content(slot: Slot, whole: memoryview) -> memoryview:
    return whole[slot.offset : slot.offset + slot.bytes]


def _numbers(slot: Slot, whole: memoryview) -> NDArray[np.float32]:
    return np.frombuffer(_content(slot, whole), "<f4")
