"""Where the bytes of a packed file went: per tensor and per part, to the last byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.columns import aligned
from lilliput.noun import Noun
from lilliput.units import format_bytes

HEADER, GRAPH = "header", "graph"
_SHOWN = 24


class Entry(Noun):
    """Bytes of one tensor, or of the header or the graph, by part.

    `raw_bytes` is what the same takes in the ONNX file.
    """

    name: str
    raw_bytes: int
    parts: dict[str, int]

    @property
    def bytes(self) -> int:
        """All its parts."""
        return sum(self.parts.values())


class Bill(Noun):
    """All entries; their bytes add up to the length of the file.

    One stream of code holds all tensors, and a symbol takes a fraction of a bit of it: a tensor's
    bytes are its symbols' information, rounded so that the whole comes out even.
    """

    entries: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        """The length of the packed file."""
        return sum(entry.bytes for entry in self.entries)

    @property
    def raw_bytes(self) -> int:
        """The length of the ONNX file."""
        return sum(entry.raw_bytes for entry in self.entries)

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part, over all tensors."""
        found: dict[str, int] = {}
        for entry in self.entries:
            for part, size in entry.parts.items():
                found[part] = found.get(part, 0) + size
        return found

    def __str__(self) -> str:
        names = list(self.parts)
        head = ["", "ONNX", "packed", "share", *names]
        rows = [head, *(self._cells(entry, names) for entry in self._worth_showing())]
        total = Entry(name="total", raw_bytes=self.raw_bytes, parts=self.parts)
        rows.append(self._cells(total, names))
        return "\n".join(aligned(rows, right=range(1, len(head))))

    def _worth_showing(self) -> list[Entry]:
        """The largest entries in their order, and one for all the small ones."""
        by_size = sorted(self.entries, key=lambda entry: -entry.bytes)
        small = set(map(id, by_size[_SHOWN:]))
        shown = [entry for entry in self.entries if id(entry) not in small]
        if small:
            rest = Bill(entries=tuple(entry for entry in self.entries if id(entry) in small))
            name = f"{len(small)} small ones"
            shown.append(Entry(name=name, raw_bytes=rest.raw_bytes, parts=rest.parts))
        return shown

    def _cells(self, entry: Entry, names: Sequence[str]) -> list[str]:
        share = 100 * entry.bytes / max(1, self.bytes)
        sizes = [format_bytes(entry.parts[name]) if name in entry.parts else "" for name in names]
        return [
            entry.name,
            format_bytes(entry.raw_bytes),
            format_bytes(entry.bytes),
            f"{share:.1f} %",
            *sizes,
        ]

    def as_json(self) -> dict[str, Any]:
        """Every figure as plain values."""
        return {
            "bytes": self.bytes,
            "raw_bytes": self.raw_bytes,
            "parts": self.parts,
            "entries": [
                {"name": e.name, "bytes": e.bytes, "raw_bytes": e.raw_bytes, "parts": e.parts}
                for e in self.entries
            ],
        }


class Ledger:
    """Books information as it is coded: bits by (owner, part).

    `owners` are the tensors of the unit at work, by their place in the file.
    """

    def __init__(self) -> None:
        self.bits: dict[tuple[int, str], float] = {}
        self.owners: Sequence[int] = (0,)
        self.part = "values"
        self.each = 0

    @property
    def total(self) -> float:
        """Bits of everything."""
        return sum(self.bits.values())

    def book(self, costs: NDArray[np.float64], places: NDArray[np.intp] | None) -> None:
        """Symbols that belong to the owners in turn, `each` to one; or to all, if none is said."""
        count = len(self.owners)
        if count == 1 or not self.each or (places is None and costs.size != count * self.each):
            shares = np.full(count, costs.sum() / count)
        else:
            owner = (np.arange(costs.size) if places is None else places) // self.each
            shares = np.bincount(owner, weights=costs, minlength=count)
        for owner_id, share in zip(self.owners, shares.tolist(), strict=True):
            key = owner_id, self.part
            self.bits[key] = self.bits.get(key, 0.0) + share


def shared_out(bits: Mapping[tuple[int, str], float], total: int) -> dict[tuple[int, str], int]:
    """Whole bytes in proportion to bits, adding up to `total`: largest remainders get the rest."""
    whole = sum(bits.values())
    if whole <= 0:
        return {}
    exact = {key: total * share / whole for key, share in bits.items()}
    given = {key: int(share) for key, share in exact.items()}
    rest = total - sum(given.values())
    for key in sorted(exact, key=lambda k: given[k] - exact[k])[:rest]:
        given[key] += 1
    return given
