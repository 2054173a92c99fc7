"""One description of the data, read in both directions.

What is coded, and in which order, is written once, in functions that pass symbols through a
`Stream`. An encoder's stream takes the symbols and returns them; a decoder's ignores what it is
given and returns those of the file. So the two can never disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import log2
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from lilliput.codec.bill import Ledger
from lilliput.codec.tables import Ints, Small, Table
from lilliput.errors import Refused

Places = NDArray[np.intp]


class Stream:
    """Symbols in, symbols out; `decoding` tells which way. `ledger` books what each one costs."""

    decoding = False

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger

    def code(
        self, symbols: Ints | None, classes: Small, table: Table, places: Places | None = None
    ) -> Ints:
        """Symbols with adaptive counts, all of one class in their order, then those of the next.

        Args:
            symbols: (n,) for an encoder.
            classes: (n,) which row of the table each symbol is coded with.
            table: The counts; they change when all are coded.
            places: (n,) of the symbols in the plane, for the ledger; all of it unless given.
        """
        sort = _by_class(classes)
        if self.decoding or symbols is None:
            ordered = np.empty(classes.size, np.int32)
        else:
            ordered = symbols if sort.order is None else symbols[sort.order]
        costs = None if self.ledger is None else np.empty(classes.size)
        for row, here in sort.parts():
            counts = table.counts[row]
            ordered[here] = self._some(ordered[here], counts)
            if costs is not None:
                costs[here] = (log2(counts.sum()) - np.log2(counts))[ordered[here]]
        table.learn(sort.rows, ordered, sort.sizes)
        if self.ledger is not None and costs is not None:
            self.ledger.book(sort.undo(costs), places)
        return sort.undo(ordered)

    def code_each(self, symbols: Ints | None, classes: Small, table: Table) -> Ints:
        """As `code`, but in the order of the places: one call where classes are many and small."""
        counts = table.counts[classes]
        model = constriction.stream.model.Categorical(perfect=False)
        found = self._rows(symbols, model, counts)
        if self.ledger is not None:
            chosen = counts[np.arange(found.size), found]
            self.ledger.book(np.log2(counts.sum(1) / chosen), None)
        table.count(classes, found)
        return found

    def uniform(
        self, symbols: Ints | None, count: int, size: int, places: Places | None = None
    ) -> Ints:
        """`count` symbols of which each of 0 ... size - 1 is equally likely; size <= 2**20."""
        if self.ledger is not None:
            self.ledger.book(np.full(count, log2(size)), places)
        if size == 1 or count == 0:
            return np.zeros(count, np.int32)
        return self._all(symbols, count, _even(size))

    def cut(self) -> None:
        """End the piece of code at work and begin the next, so that none is large."""

    def number(self, number: int, size: int) -> int:
        """One of 0 ... size - 1, all equally likely."""
        if self.ledger is not None:
            self.ledger.book(np.array([log2(size)]), None)
        return 0 if size == 1 else self._one(number, _even(size))

    def book_as(self, part: str, each: int) -> None:
        """What follows belongs to this part of the tensors, `each` symbols to every one."""
        if self.ledger is not None:
            self.ledger.part, self.ledger.each = part, each

    @contextmanager
    def all_booked_as(self, part: str) -> Iterator[None]:
        """Whatever the code inside says, it belongs to this part, and to all owners alike."""
        if self.ledger is None:
            yield
            return
        outer, self.ledger = self.ledger, Ledger()
        try:
            yield
        finally:
            inner, self.ledger = self.ledger, outer
            self.book_as(part, 0)
            self.ledger.book(np.array([inner.total]), None)

    def _some(self, symbols: Ints, counts: NDArray[np.float64]) -> Ints:
        if counts.size == 1:
            return np.zeros(symbols.size, np.int32)
        model = constriction.stream.model.Categorical(counts, perfect=False)
        return self._all(symbols, symbols.size, model)

    def _all(self, symbols: Ints | None, count: int, model: Any) -> Ints:
        raise NotImplementedError

    def _rows(self, symbols: Ints | None, model: Any, counts: NDArray[np.float64]) -> Ints:
        """A symbol by each row of counts."""
        raise NotImplementedError

    def _one(self, number: int, model: Any) -> int:
        return int(self._all(np.array([number], np.int32), 1, model)[0])


class Writer(Stream):
    """The encoder's stream."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        super().__init__(ledger)
        self._coder = constriction.stream.queue.RangeEncoder()
        self.pieces: list[bytes] = []

    def _all(self, symbols: Ints | None, count: int, model: Any) -> Ints:  # noqa: ARG002
        assert symbols is not None
        self._coder.encode(np.ascontiguousarray(symbols, np.int32), model)
        return symbols

    def _rows(self, symbols: Ints | None, model: Any, counts: NDArray[np.float64]) -> Ints:
        assert symbols is not None
        self._coder.encode(symbols, model, counts)
        return symbols

    def cut(self) -> None:
        """See `Stream`. A piece is little-endian 32-bit words."""
        self.pieces.append(self._coder.get_compressed().astype("<u4").tobytes())
        # A new one: `clear` of constriction 0.5 leaves a pending carry behind.
        self._coder = constriction.stream.queue.RangeEncoder()


class Estimator(Stream):
    """Books what coding would cost and writes nothing."""

    def _all(self, symbols: Ints | None, count: int, model: Any) -> Ints:  # noqa: ARG002
        assert symbols is not None
        return symbols

    def _rows(self, symbols: Ints | None, model: Any, counts: NDArray[np.float64]) -> Ints:  # noqa: ARG002
        assert symbols is not None
        return symbols


class Reader(Stream):
    """The decoder's stream. It asks for a piece of code when it has come to it."""

    decoding = True

    def __init__(self, pieces: Iterator[bytes], ledger: Ledger | None = None) -> None:
        super().__init__(ledger)
        self._pieces = pieces
        self.cut()

    def cut(self) -> None:
        """See `Stream`."""
        words = np.frombuffer(next(self._pieces), "<u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def _all(self, symbols: Ints | None, count: int, model: Any) -> Ints:  # noqa: ARG002
        try:
            found: Ints = self._coder.decode(model, count)
        except AssertionError as error:
            raise Refused("the packed weights are damaged") from error
        return found

    def _rows(self, symbols: Ints | None, model: Any, counts: NDArray[np.float64]) -> Ints:  # noqa: ARG002
        try:
            found: Ints = self._coder.decode(model, counts)
        except AssertionError as error:
            raise Refused("the packed weights are damaged") from error
        return found

    def _one(self, number: int, model: Any) -> int:  # noqa: ARG002
        try:
            return int(self._coder.decode(model))
        except AssertionError as error:
            raise Refused("the packed weights are damaged") from error


@lru_cache(64)
def _even(size: int) -> Any:
    return constriction.stream.model.Uniform(size)


@dataclass(frozen=True)
class _Sorted:
    """Places in the order of their classes; `order` is None where that is their own order."""

    rows: NDArray[np.intp]
    sizes: NDArray[np.intp]
    order: NDArray[np.intp] | None

    def parts(self) -> Iterator[tuple[int, slice]]:
        """(class, its places) in rising order."""
        begin = 0
        for row, size in zip(self.rows.tolist(), self.sizes.tolist(), strict=True):
            yield row, slice(begin, begin + size)
            begin += size

    def undo(self, ordered: NDArray[Any]) -> NDArray[Any]:
        """What is in the order of the classes, back in its own."""
        if self.order is None:
            return ordered
        back = np.empty_like(ordered)
        back[self.order] = ordered
        return back


def _by_class(classes: Small) -> _Sorted:
    """Places by class, those of one class in their own order."""
    sizes = np.bincount(classes)
    rows = np.flatnonzero(sizes)
    order = None
    if rows.size > 1:
        # The sort of bytes is by far the fastest, and no table has more rows.
        order = np.argsort(classes.astype(np.uint8), kind="stable")
    return _Sorted(rows, sizes[rows], order)
