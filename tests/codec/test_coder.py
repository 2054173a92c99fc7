"""The range coder as the specification describes it, written down once more in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.codec.bill import Ledger
from lilliput.codec.coder import Estimator, Reader, Writer
from lilliput.codec.tables import Table

PRECISION = 24


class PlainReader:
    """docs/reference/lil.md, "The range coder", word for word."""

    def __init__(self, words: list[int]) -> None:
        self.words = words
        self.lower, self.range = 0, 2**64 - 1
        self.at = 2
        first, second = [*words, 0, 0][:2]
        self.point = first << 32 | second

    def symbol(self, left: list[int]) -> int:
        """`left` holds the cumulative frequencies, from 0 to 2**24."""
        scale = self.range >> PRECISION
        quantile = ((self.point - self.lower) % 2**64) // scale
        symbol = max(s for s in range(len(left) - 1) if left[s] <= quantile)
        self.lower = (self.lower + scale * left[symbol]) % 2**64
        self.range = scale * (left[symbol + 1] - left[symbol])
        if self.range < 2**32:
            self.lower = (self.lower << 32) % 2**64
            self.range <<= 32
            word = self.words[self.at] if self.at < len(self.words) else 0
            self.point = (self.point << 32) % 2**64 | word
            self.at += 1
        return symbol


def adaptive(counts: list[int]) -> list[int]:
    scale = (2**PRECISION - len(counts)) / float(sum(counts))
    sums = [sum(counts[:n]) for n in range(len(counts))]
    return [int(total * scale) + n for n, total in enumerate(sums)] + [2**PRECISION]


def even(size: int) -> list[int]:
    return [n * (2**PRECISION // size) for n in range(size)] + [2**PRECISION]


@st.composite
def messages(draw):
    """Some calls: adaptive ones with their counts, classes and symbols, and uniform ones."""
    calls = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 12))
        length = draw(st.integers(1, 20))
        symbols = draw(st.lists(st.integers(0, size - 1), min_size=length, max_size=length))
        if draw(st.booleans()):
            calls.append((size, symbols, None, None))
            continue
        counts = draw(st.lists(st.integers(1, 9000), min_size=2 * size, max_size=2 * size))
        classes = draw(st.lists(st.integers(0, 1), min_size=length, max_size=length))
        calls.append((size, symbols, classes, np.reshape(counts, (2, size)).astype(np.float64)))
    return calls


def words_of(writer: Writer) -> bytes:
    writer.cut()
    return writer.pieces[-1]


def send(stream, calls, *, given: bool):
    found = []
    for size, symbols, classes, counts in calls:
        told = np.array(symbols, np.int32) if given else None
        if classes is None:
            found.append(stream.uniform(told, len(symbols), size).tolist())
        else:
            table = Table(counts.copy(), weight=5)
            found.append(stream.code(told, np.array(classes, np.int16), table).tolist())
    return found


@given(messages())
def test_what_is_written_is_read(calls):
    writer = Writer()
    assert send(writer, calls, given=True) == [symbols for _, symbols, _, _ in calls]
    reader = Reader(iter([words_of(writer)]))
    assert send(reader, calls, given=False) == [symbols for _, symbols, _, _ in calls]


@given(messages())
def test_the_specification_reads_it_too(calls):
    writer = Writer()
    send(writer, calls, given=True)
    reader = PlainReader(np.frombuffer(words_of(writer), "<u4").tolist())
    for size, symbols, classes, counts in calls:
        if size == 1:
            continue
        if classes is None:
            assert [reader.symbol(even(size)) for _ in symbols] == symbols
            continue
        for row in (0, 1):
            expected = [s for s, c in zip(symbols, classes, strict=True) if c == row]
            left = adaptive([int(count) for count in counts[row]])
            assert [reader.symbol(left) for _ in expected] == expected


@given(messages())
def test_the_ledger_knows_the_length(calls):
    ledgers = [Ledger(), Ledger(), Ledger()]
    writer = Writer(ledgers[0])
    send(writer, calls, given=True)
    words = words_of(writer)
    send(Estimator(ledgers[1]), calls, given=True)
    send(Reader(iter([words]), ledgers[2]), calls, given=False)
    assert ledgers[0].bits == ledgers[1].bits == ledgers[2].bits
    assert ledgers[0].total / 8 <= len(words) + 1e-3
    assert len(words) <= ledgers[0].total / 8 + 8.1


def test_counts_are_halved_beyond_the_limit():
    table = Table(np.full((2, 2), 4.0), weight=10, limit=100)
    table.learn(np.array([1]), np.zeros(20, np.int32), np.array([20]))
    assert table.counts.tolist() == [[4, 4], [103, 3]]


def test_a_reader_of_nothing_gives_up_or_gives_something():
    reader = Reader(iter([b""]))
    assert reader.uniform(None, 100, 7).size == 100


def test_parts_that_are_booked_aside():
    ledger = Ledger()
    stream = Estimator(ledger)
    with stream.all_booked_as("codebook"):
        stream.book_as("values", 0)
        stream.number(3, 16)
    assert ledger.bits == {(0, "codebook"): pytest.approx(4.0)}
    quiet = Estimator()
    with quiet.all_booked_as("codebook"):
        quiet.number(3, 16)
