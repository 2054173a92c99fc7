"""A decoder written from docs/reference/lil.md alone, in plain Python, number by number.

It shares no line with the codec. Where the two disagree, one of them or the page is wrong. The walk
that finds payloads is the codec's own; `test_wire.py` looks after it.
"""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from lilliput.codec import wire
from lilliput.codec.container import encode
from lilliput.codec.phrases import PHRASES
from lilliput.codec.wire import Slot

LZMA = {"id": lzma.FILTER_LZMA1, "lc": 0, "lp": 0, "pb": 0, "dict_size": 1 << 20}
FORMATS = {1: (8, 23), 10: (5, 10), 16: (8, 7), 11: (11, 52), 6: (11, 52), 12: (11, 52)}
STORED = {1: "<u4", 10: "<u2", 16: "<u2", 11: "<u8", 6: "<i4", 12: "<u4"}
WHOLE, SIGNED, NIBBLES = (6, 12), (3, 22), (21, 22)
SHARE = (0, 1, 2, 2, 3, 3, 3, 3, 4)

Shape = tuple[int, int, int, int]
Place = tuple[int, int, int, int]


def clip(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def log(value: int, most: int) -> int:
    h = max(0, most.bit_length() - 14)
    return round(16 * math.log2(2 * (value >> h) + 1)) + 16 * (h - 1)


def fine_log(value: int) -> int:
    h = 0 if value < 1 << 14 else 10
    return round(16 * math.log2(2 * (value >> h) + 1)) + 16 * h


def bell(n: int, size: int, centre: int) -> list[int]:
    q, r = divmod(size - 8 + 192, 16)
    v = max(64, (round(2 ** (16 + r / 16)) << q) >> 16)

    def f(b: int) -> int:
        j = clip((32768 * (16 * b - 8 - 2 * centre) + v) // (2 * v), -1280, 1280)
        return round(2**30 / (1 + math.exp(-j / 64)))

    half = n // 2
    return [((f(b + 1) - f(b)) * 4096 >> 30) + 1 for b in [*range(n - half), *range(-half, 0)]]


class Table:
    def __init__(self, rows: list[list[int]], weight: int = 16, limit: int = 1 << 22) -> None:
        self.rows, self.weight, self.limit = rows, weight, limit


def flat(rows: int, symbols: int, limit: int = 1 << 22) -> Table:
    return Table([[4] * symbols for _ in range(rows)], limit=limit)


class Coder:
    def __init__(self) -> None:
        self.words: list[int] = []

    def begin(self, words: list[int]) -> None:
        self.words, self.at = [*words, 0, 0], 2
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.words[0] << 32 | self.words[1]

    def quantile(self) -> int:
        return ((self.point - self.lower) % 2**64) // (self.range >> 24)

    def take(self, low: int, high: int) -> None:
        scale = self.range >> 24
        self.lower = (self.lower + scale * low) % 2**64
        self.range = scale * (high - low)
        if self.range < 2**32:
            word = self.words[self.at] if self.at < len(self.words) else 0
            self.at += 1
            self.lower = (self.lower << 32) % 2**64
            self.point = (self.point << 32) % 2**64 | word
            self.range <<= 32

    def number(self, n: int) -> int:
        if n == 1:
            return 0
        each = 2**24 // n
        s = min(self.quantile() // each, n - 1)
        self.take(s * each, (s + 1) * each if s < n - 1 else 2**24)
        return s

    def varied(self, classes: list[int], table: Table) -> list[int]:
        found = []
        for row in classes:
            f = table.rows[row]
            w = (2**24 - 2) / float(sum(f))
            c = [0, int(w * float(f[0])) + 1, 2**24]
            s = int(self.quantile() >= c[1])
            self.take(c[s], c[s + 1])
            found.append(s)
        for row, s in zip(classes, found, strict=True):
            table.rows[row][s] += table.weight
        for row, f in enumerate(table.rows):
            if sum(f) > table.limit:
                table.rows[row] = [count // 2 + 1 for count in f]
        return found

    def code(self, classes: list[int], table: Table) -> list[int]:
        found = [0] * len(classes)
        for row in sorted(set(classes)):
            f = table.rows[row]
            n = len(f)
            here = [place for place, c in enumerate(classes) if c == row]
            if n > 1:
                w = (2**24 - n) / float(sum(f))
                sums = np.concatenate([[0], np.cumsum(f)[:-1]])
                c = [*(int(w * float(total)) + s for s, total in enumerate(sums)), 2**24]
                for place in here:
                    q = self.quantile()
                    found[place] = s = int(np.searchsorted(c, q, "right")) - 1
                    self.take(c[s], c[s + 1])
            for place in here:
                f[found[place]] += table.weight
            if sum(f) > table.limit:
                table.rows[row] = [count // 2 + 1 for count in f]
        return found


def varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at


def odds() -> Table:
    rows = []
    for row in range(72):
        quarter = row - 56
        q, r = divmod(abs(4 * quarter + 2) + 192, 16)
        more = 64 * ((round(2 ** (16 + r / 16)) << q) >> 16) >> 12
        rows.append([more, 64] if quarter < 0 else [64, more])
    return Table([[*row] for _ in range(7) for row in rows], limit=1 << 16)


class Filled:
    """How full rows, columns, kernels and neighbourhoods of a unit are, and what follows."""

    def __init__(self, shape: Shape, kernel: tuple[int, ...], line: int) -> None:
        known = Known(shape, kernel, 1)
        self.shape, self.line = shape, line
        self.order, self.places = known.order, known.places
        self.value: dict[Place, int] = {}
        self.found, self.expected = [0] * 16, [0] * 16

    def passes(self) -> Iterator[tuple[int, int, list[Place]]]:
        """(planes known, how far neighbours are, places)."""
        groups, rows, columns, count = self.shape
        t = max(1, min(4, math.isqrt(rows * columns // 64)))
        if count == 1:
            t = min(8, rows * columns // 512)

        def cuts(length: int) -> list[range]:
            n = max(1, min(t, length // 4))
            return [range(length * p // n, length * (p + 1) // n) for p in range(n)]

        if count == 1:
            for row in cuts(rows):
                for far, some in self.columns():
                    yield 0, far, list(product(range(groups), row, some, [0]))
            return
        for row, column in product(cuts(rows), cuts(columns)):
            yield 0, 0, list(product(range(groups), row, column, [self.order[0]]))
        for step, k in enumerate(self.order[1:], 1):
            yield step, 0, list(product(range(groups), range(rows), range(columns), [k]))

    def columns(self) -> Iterator[tuple[int, list[int]]]:
        every = range(self.shape[2])
        yield 16, [i for i in every if i % self.line % 16 == 0 and i // self.line % 16 == 0]
        for far in (8, 4, 2, 1):
            for odd in (2, 1):
                held = [
                    i
                    for i in every
                    if i % self.line % far == 0
                    and i // self.line % far == 0
                    and (i % self.line // far % 2) + (i // self.line // far % 2) == odd
                ]
                parts = -(-16 * len(held) // len(every))
                for part in range(parts):
                    yield far, held[part::parts]

    def beside(self, far: int, place: Place) -> list[Place]:
        g, o, i, k = place
        if self.shape[3] > 1:
            known = self.order[: self.order.index(k)]
            near = [
                j
                for j in known
                if sum((a - b) ** 2 for a, b in zip(self.places[j], self.places[k], strict=True))
                <= 2
            ]
            return [(g, o, i, j) for j in near]
        if far > 2:
            return []
        x, y = i % self.line, i // self.line
        corner = (x // far % 2) + (y // far % 2) == 2
        steps = (
            ((-1, -1), (-1, 1), (1, -1), (1, 1)) if corner else ((0, -1), (0, 1), (-1, 0), (1, 0))
        )
        found = []
        for dy, dx in steps:
            there = x + far * dx, y + far * dy
            if 0 <= there[0] < self.line and there[1] >= 0:
                found.append((g, o, there[1] * self.line + there[0], 0))
        return found

    def nearness(self, far: int, place: Place) -> int:
        """The class of a place of a tensor without a kernel; 0: neighbours are not counted."""
        if self.shape[3] > 1 or far > 2:
            return 0
        x, y = place[2] % self.line, place[2] // self.line
        corner = (x // far % 2) + (y // far % 2) == 2
        first = 1 if far == 2 else 6 if corner else 11
        return first + sum(self.value.get(p, 0) != 0 for p in self.beside(far, place))

    def leaning(self, far: int, place: Place) -> int:
        total = sum(
            (v > 0) - (v < 0) for p in self.beside(far, place) for v in [self.value.get(p, 0)]
        )
        if total == 0:
            return 0
        return (3 if far == 2 else 1) + (total > 0)

    def classes(self, step: int, far: int, where: list[Place]) -> tuple[list[int], list[int]]:
        """(classes, the chances that neighbours multiply) of the places."""
        n: dict[Any, int] = {}
        seen: dict[Any, int] = {}
        for (g, o, i, _), value in self.value.items():
            for key in (g, ("o", g, o), ("i", g, i), ("k", g, o, i)):
                n[key] = n.get(key, 0) + (value != 0)
                seen[key] = seen.get(key, 0) + 1

        def more(count: int, sixteenths: int) -> int:
            return fine_log(count) + 64 - fine_log(sixteenths)

        def than_all(key: Any, places: int, g: int) -> int:
            expected = 32 * places * n.get(g, 0) // max(seen.get(g, 0), 1)
            return more(n.get(key, 0), (expected + 15) >> 1)

        found, chances = [], []
        for place in where:
            g, o, i, _ = place
            size = fine_log(n.get(g, 0)) - fine_log(seen.get(g, 0) - n.get(g, 0))
            for key in (("o", g, o), ("i", g, i)):
                size += than_all(key, seen.get(key, 0), g)
            if step:
                size += 8 * than_all(("k", g, o, i), step, g) >> 4
            zero, one = odds().rows[clip((size >> 2) + 56, 0, 71)]
            chances.append((one << 16) // (zero + one))
            near = self.nearness(far, place)
            if near:
                size += more(self.found[near], (32 * self.expected[near] + (15 << 16)) >> 17)
            found.append(clip((size >> 2) + 56, 0, 71))
        return found, chances


class Known:
    """What is known of a unit's weights, and what follows from it."""

    def __init__(self, shape: Shape, kernel: tuple[int, ...], most: int) -> None:
        self.shape, self.most = shape, most
        places = list(product(*map(range, kernel)))
        middle = [sum((2 * a - s + 1) ** 2 for a, s in zip(p, kernel, strict=True)) for p in places]
        self.places = places
        self.order = sorted(range(len(places)), key=lambda k: middle[k])
        self.proxy: dict[Place, int] = {}

    def passes(self) -> Iterator[tuple[int, list[Place]]]:
        groups, rows, columns, count = self.shape
        most = 2 if count > 1 else 6
        t = max(1, min(most, math.isqrt(groups * rows * columns // 512)))

        def cuts(length: int) -> list[range]:
            n = max(1, min(t, length // 4))
            return [range(length * p // n, length * (p + 1) // n) for p in range(n)]

        for row, column in product(cuts(rows), cuts(columns)):
            yield 0, list(product(range(groups), row, column, [self.order[0]]))
        for step, k in enumerate(self.order[1:], 1):
            yield step, list(product(range(groups), range(rows), range(columns), [k]))

    def sizes(self, step: int, where: list[Place]) -> list[int] | None:
        if not self.proxy:
            return None
        sums: dict[Any, list[int]] = {}
        for (g, o, i, _), value in self.proxy.items():
            for key in (g, ("o", g, o), ("i", g, i), ("k", g, o, i)):
                entry = sums.setdefault(key, [0, 0])
                entry[0] += abs(value)
                entry[1] += 1

        def m(key: Any) -> int:
            total, count = sums[key]
            return log(16 * total // count, 16 * self.most) - 64

        found = []
        for g, o, i, _ in where:
            mean = m(g)
            row, column = (
                m(key) - mean if key in sums else 0 for key in (("o", g, o), ("i", g, i))
            )
            size = 10 * (row + column)
            if step:
                kernel = log(sums["k", g, o, i][0], self.most * self.shape[3])
                size += SHARE[min(step, 8)] * (kernel - mean - log(step, step))
            found.append((size >> 4) + mean)
        return found

    def expected(
        self, coder: Coder, table: Table, step: int, where: list[Place]
    ) -> tuple[list[int] | None, int]:
        way = coder.number(3) if step else 0
        if not way:
            return None, 0
        smaller = coder.number(16)
        here = self.places[self.order[step]]

        def far(before: int) -> int:
            there = self.places[self.order[before]]
            return sum((a - b) ** 2 for a, b in zip(here, there, strict=True))

        near = sorted(sorted(range(step), key=far)[:8])
        sets = self.shape[0] if way == 2 else 1
        sent = coder.code(list(range(len(near))) * sets, table)
        found = []
        for g, o, i, _ in where:
            begin = (g if way == 2 else 0) * len(near)
            e = sum(
                (sent[begin + n] - 63) * self.proxy[g, o, i, self.order[before]]
                for n, before in enumerate(near)
            )
            found.append(clip(round(e / 4), -32760, 32760))
        return found, smaller


class Decoder:
    def __init__(self, packed: bytes) -> None:
        assert packed[:4] == b"LIL\x03"
        body = memoryview(packed)
        self.total, at = varint(body, 12)
        graph, at = varint(body, at)
        packed_graph, at = varint(body, at)
        primed, end = packed_graph & 1, at + (packed_graph >> 1)
        if primed:
            self.skeleton = zlib.decompressobj(-15, zdict=PHRASES).decompress(body[at:end])
        else:
            decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[LZMA])
            self.skeleton = decoder.decompress(body[at:end], max_length=graph)
        assert len(self.skeleton) == graph
        self.rest = body[end:]
        self.coder = Coder()
        self.next_piece()
        self.tables: dict[Any, Any] = {}

    def next_piece(self) -> None:
        count, at = varint(self.rest, 0)
        self.coder.begin(list(struct.unpack_from(f"<{count}I", self.rest, at)))
        self.rest = self.rest[at + 4 * count :]

    def table(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.tables:
            self.tables[key] = make()
        return self.tables[key]

    def run(self) -> bytes:  # noqa: C901  # in the order of the page
        slots = wire.missing(self.skeleton, self.total)
        whole = bytearray(self.total)
        wire.paste(self.skeleton, slots, memoryview(whole))
        groups: dict[Any, list[Slot]] = {}
        for slot in slots:
            groups.setdefault((slot.data_type, slot.shape), []).append(slot)
        factors: list[Slot] = []
        coded = 0
        for group in sorted(groups.values(), key=lambda held: held[0].count):
            marks = [0] * len(group)
            if len(group) > 1 and self.coder.number(2):
                marks = [self.coder.number(4) for _ in group]
            own: list[Slot] = []
            later = []
            for slot, mark in zip(group, marks, strict=True):
                if mark in (0, 3):
                    own.append(slot)
                    continue
                source = own[self.coder.number(len(own))]
                factor = factors[self.coder.number(len(factors))] if mark == 2 else None
                later.append((slot, source, factor))
            for wanted in (0, 3):
                chosen = [s for s, mark in zip(group, marks, strict=True) if mark == wanted]
                for held, begin, shape, kernel in self.units(chosen):
                    if coded >= 1 << 20:
                        self.next_piece()
                        coded = 0
                    coded += int(np.prod(shape))
                    self.unit(held, begin, shape, kernel, whole)
            for slot, source, factor in later:
                content = bytes(whole[source.offset : source.offset + source.bytes])
                if factor is not None:
                    (times,) = np.frombuffer(whole, "<f4", 1, factor.offset)
                    content = (np.frombuffer(content, "<f4") * times).tobytes()
                whole[slot.offset : slot.offset + slot.bytes] = content
            if group[0].data_type == 1 and group[0].count == 1:
                factors += group
        assert not self.rest
        return bytes(whole)

    def units(self, group: list[Slot]) -> Iterator[tuple[list[Slot], int, Shape, tuple[int, ...]]]:
        if not group:
            return
        shape = (1,) * (2 - len(group[0].shape)) + group[0].shape
        rows, columns, kernel = shape[0], shape[1], shape[2:] or (1,)
        if math.prod(kernel) > 1024 or len(kernel) > 4:
            rows, columns, kernel = 1, group[0].count, (1,)
        size = columns * math.prod(kernel)
        a = (1 << 18) // size
        if rows <= a or group[0].count <= 1 << 19:
            together = max(1, a // rows)
            for n in range(0, len(group), together):
                some = group[n : n + together]
                yield some, 0, (len(some), rows, columns, math.prod(kernel)), kernel
            return
        for slot in group:
            if a < 2:
                for begin in range(0, slot.count, 1 << 18):
                    yield [slot], begin, (1, 1, min(1 << 18, slot.count - begin), 1), (1,)
                continue
            for row in range(0, rows, a - a % 2):
                height = min(a - a % 2, rows - row)
                yield [slot], row * size, (1, height, columns, math.prod(kernel)), kernel

    def unit(
        self,
        slots: list[Slot],
        begin: int,
        shape: Shape,
        kernel: tuple[int, ...],
        whole: bytearray,
    ) -> None:
        kind, coder = slots[0].data_type, self.coder
        bits = wire.BITS[kind]
        count = shape[1] * shape[2] * shape[3]
        at, length = begin * bits // 8, -(-count * bits // 8)
        way = coder.number(4)
        if way == 2:
            size = coder.number(1 << 20) * (1 << 20) + coder.number(1 << 20)
            packed = bytes(coder.number(256) for _ in range(size))
            plain = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[LZMA])
            content = plain.decompress(packed, max_length=length * len(slots))
        elif way == 1:
            content = self.stored(self.codebook(kind, shape, kernel), kind, count)
        elif way == 3:
            content = self.stored(self.steps_of_rows(shape, kernel), kind, count)
        elif kind in FORMATS:
            numbers = self.floats(FORMATS[kind], kind in WHOLE, False, shape, kernel)
            content = self.stored(numbers, kind, count)
        else:
            content = self.stored(self.levels(shape, kernel), kind, count)
        for n, slot in enumerate(slots):
            part = content[n * length : (n + 1) * length]
            whole[slot.offset + at : slot.offset + at + length] = part

    def stored(self, numbers: list[int], kind: int, count: int) -> bytes:
        if kind in WHOLE:
            return np.array(numbers, np.uint64).view(np.float64).astype(STORED[kind]).tobytes()
        if kind in FORMATS:
            return np.array(numbers, np.uint64).astype(STORED[kind]).tobytes()
        if kind not in NIBBLES:
            return bytes(n % 256 for n in numbers)
        made = b""
        for first in range(0, len(numbers), count):
            held = [n % 16 for n in numbers[first : first + count]] + [0] * (count % 2)
            made += bytes(a | b << 4 for a, b in zip(held[::2], held[1::2], strict=True))
        return made

    def codebook(self, kind: int, shape: Shape, kernel: tuple[int, ...]) -> list[int]:
        e, m = FORMATS[kind]
        sizes = [self.coder.number(256) + 1 for _ in range(shape[0])]
        joined = self.floats((e, m), kind in WHOLE, True, (1, 1, sum(sizes), 1), (1,))
        f = self.coder.number(129)
        count = shape[1] * shape[2] * shape[3]
        indices = [0] * (count * shape[0])
        if f:
            indices = self.integers(min(256, 2 * f + 1), shape, kernel)
        found = []
        for g, size in enumerate(sizes):
            book, joined = joined[:size], joined[size:]
            magnitudes = [entry % (1 << (e + m)) for entry in book]
            middle = magnitudes.index(min(magnitudes))
            held = indices[g * count : (g + 1) * count]
            found += [book[(index + middle) % 256] for index in held]
        return found

    def steps_of_rows(self, shape: Shape, kernel: tuple[int, ...]) -> list[int]:
        f, count = self.coder.number(129), math.prod(shape)
        q = self.integers(2 * f + 1, shape, kernel) if f else [0] * count
        rows, each = shape[0] * shape[1], shape[2] * shape[3]
        steps = self.floats((8, 23), False, True, (1, 1, rows, 1), (1,))
        table = self.table("corrections", lambda: flat(1, 9))
        keys = sorted({(r, abs(n)) for r in range(rows) for n in q[r * each : (r + 1) * each]})
        keys = [key for key in keys if key[1] > 1]
        left = dict(zip(keys, self.coder.code([0] * len(keys), table), strict=True))
        found = []
        for place, n in enumerate(q):
            row, size = place // each, abs(n)
            step = np.uint32(steps[row] % (1 << 31)).view(np.float32)
            word = int((step * np.float32(size)).view(np.uint32)) if n else 0
            sign = (steps[row] >> 31) ^ (n < 0)
            found.append((word + left.get((row, size), 4) - 4) | sign << 31)
        return found

    def levels(self, shape: Shape, kernel: tuple[int, ...]) -> list[int]:
        middle = self.coder.number(384) - 128
        f = self.coder.number(129)
        if not f:
            return [middle] * math.prod(shape)
        return [middle + n for n in self.integers(min(256, 2 * f + 1), shape, kernel)]

    def integers(self, n: int, shape: Shape, kernel: tuple[int, ...]) -> list[int]:
        value, zero, live, place_odds, coefficients = self.table(
            ("integers", n),
            lambda: (
                Table(
                    [
                        [4096 // n + 1] * n,
                        *(bell(n, 8 * h + 4, 2 * p) for h in range(-4, 4) for p in range(4)),
                        *(bell(n, 8 * h + 4, 0) for h in range(4, 16)),
                    ],
                    weight=32,
                ),
                flat(45, 2),
                flat(5, n, limit=1 << 16),
                odds(),
                flat(8, 127),
            ),
        )
        sparse = self.coder.number(3)
        if sparse == 2:
            line = self.coder.number(shape[2]) + 1 if shape[3] == 1 else shape[2]
            return self.counted(n, live, place_odds, Filled(shape, kernel, line))
        known = Known(shape, kernel, n)
        for step, where in known.passes():
            expected, smaller = None, 0
            if not sparse:
                expected, smaller = known.expected(self.coder, coefficients, step, where)
            sizes = known.sizes(step, where)
            classes = [0] * len(where)
            for p, size in enumerate(sizes or ()):
                half = clip((size - 4 * smaller) >> 3, -4, 15)
                part = (expected[p] % 8) >> 1 if expected else 0
                classes[p] = 1 + 4 * (half + 4) + part if half < 4 else 33 + half - 4
            if sparse:
                some = self.coder.code(classes, zero)
                values = iter(self.coder.code([0] * sum(some), live))
                symbols = [next(values) if s else 0 for s in some]
            else:
                symbols = self.coder.code(classes, value)
                if expected:
                    middles = [clip(e >> 3, -n, n) for e in expected]
                    symbols = [s + m for s, m in zip(symbols, middles, strict=True)]
            for place, symbol in zip(where, symbols, strict=True):
                known.proxy[place] = (symbol + n // 2) % n - n // 2
        return [known.proxy[place] for place in product(*map(range, shape))]

    def counted(self, n: int, live: Table, place_odds: Table, filled: Filled) -> list[int]:
        found: dict[Place, int] = {}
        for number, row in enumerate(live.rows):
            while sum(live.rows[number]) > max(1 << 10, 2 * n):
                live.rows[number] = [count // 2 + 1 for count in live.rows[number]]
            assert len(row) == n
        for step, far, where in filled.passes():
            classes, chances = filled.classes(step, far, where)
            some = self.coder.varied(classes, place_odds)
            kept = [place for place, s in zip(where, some, strict=True) if s]
            leanings = [filled.leaning(far, place) for place in kept]
            values = iter(self.coder.code(leanings, live))
            near = [filled.nearness(far, place) for place in where]
            for place, s, chance, c in zip(where, some, chances, near, strict=True):
                found[place] = (next(values) + n // 2) % n - n // 2 if s else 0
                filled.found[c] += s
                filled.expected[c] += chance
            for place in where:
                filled.value[place] = found[place]
        return [found[place] for place in product(*map(range, filled.shape))]

    def floats(  # noqa: C901  # in the order of the page
        self,
        form: tuple[int, int],
        whole: bool,
        book: bool,
        shape: Shape,
        kernel: tuple[int, ...],
    ) -> list[int]:
        e, m = form
        usual = (64, 256, 1024, 1024, 1024, 512, 256, 128, 64, 32, 16, 8)

        def exponents() -> Table:
            row = [1] * (1 << e)
            for symbol, count in enumerate(usual, -2):
                row[symbol % (1 << e)] += count
            return Table([[*row] for _ in range(3)], weight=64)

        zeros, exponent_table, signs, tops, coefficients = self.table(
            ("floats", form, whole, book),
            lambda: (flat(33, 2), exponents(), flat(10, 2), flat(12, 8), flat(8, 127)),
        )
        coder = self.coder
        largest, some_zero, signed = coder.number(1 << e), coder.number(2), coder.number(2)
        spare = coder.number(m - 2)
        known, found = Known(shape, kernel, 4095), {}
        for step, where in known.passes():
            expected, _ = known.expected(coder, coefficients, step, where)
            sizes = known.sizes(step, where)
            every = range(len(where))
            zero = [0] * len(where)
            if some_zero:
                classes = [3 + clip(s >> 3, -2, 29) for s in sizes] if sizes else zero
                zero = coder.code([*classes], zeros)
            live = [p for p in every if not zero[p]]

            u = [largest - 11 + (s >> 4) for s in sizes] if sizes else [largest - 2] * len(where)
            classes = [1 + ((s >> 3) % 2) for s in sizes] if sizes else [0] * len(where)
            exponent = [0] * len(where)
            for p, s in zip(
                live, coder.code([classes[p] for p in live], exponent_table), strict=True
            ):
                exponent[p] = (u[p] - s) % (1 << e)

            top = [0] * len(where)
            classes = [clip(u[p] - exponent[p] + 4, 0, 11) for p in live]
            for p, s in zip(live, coder.code(classes, tops), strict=True):
                top[p] = s

            sign = [0] * len(where)
            d = [clip(largest - exponent[p], 0, 15) for p in every]
            classes = [0] * len(where)
            if expected and sizes:
                for p in every:
                    s = log(abs(expected[p]), 1 << 15) - 2 * sizes[p] + 16 * (8 - d[p])
                    classes[p] = 6 + clip(s >> 4, -5, 3)
            told = [*every] if signed else live
            for p, s in zip(told, coder.code([classes[p] for p in told], signs), strict=True):
                sign[p] = s ^ int(bool(expected) and expected[p] < 0)

            rest = self.rest_of(whole, m, spare, exponent, live)
            for p, place in enumerate(where):
                word = (sign[p] << e | exponent[p]) << 3 | top[p]
                found[place] = word << (m - 3) | rest[p]
                magnitude = 0 if zero[p] else (8 + top[p]) * 256 >> d[p]
                known.proxy[place] = -magnitude if sign[p] else magnitude
        return [found[place] for place in product(*map(range, shape))]

    def rest_of(
        self, whole: bool, m: int, spare: int, exponent: list[int], live: list[int]
    ) -> list[int]:
        rest = [0] * len(exponent)
        widths = {p: max(0, exponent[p] - 1026) if whole else m - 3 - spare for p in live}
        for width in sorted(set(widths.values())):
            places = [p for p in live if widths[p] == width]
            for taken in range(0, width, 20):
                bits = min(20, width - taken)
                for p in places:
                    rest[p] |= self.coder.number(1 << bits) << (m - 3 - taken - bits)
        return rest


def test_every_kind_of_tensor(mixed):
    assert Decoder(encode(mixed)[0]).run() == mixed


def test_nibbles(four_bits):
    assert Decoder(encode(four_bits)[0]).run() == four_bits


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_larger_kernels_and_rows_without(model_of, smooth_kernels, quantized, kind):
    rng = np.random.default_rng(5)

    def made(weights):
        return quantized(weights, 25) if kind == "int8" else weights

    tensors = {
        "five by five": made(smooth_kernels(rng, 6, 5, 5, 5)),
        "no kernel": made(smooth_kernels(rng, 40, 60, 1, 1))[:, :, 0, 0],
        "depthwise": made(smooth_kernels(rng, 40, 1, 3, 3)),
        "two": made(smooth_kernels(rng, 12, 16, 3, 3)),
        "and two": made(smooth_kernels(rng, 12, 16, 3, 3)),
    }
    content = model_of(tensors)
    packed, bill = encode(content)
    assert len(bill.entries) == 7
    assert Decoder(packed).run() == content


def test_rows_with_a_step_of_their_own(model_of, on_grids):
    tensors = {
        "few bits": on_grids(12, 8, 3, 3),
        "dense": on_grids(20, 40),
        "more": on_grids(8, 90),
    }
    tensors["more"][3] = 0
    content = model_of(tensors)
    packed, bill = encode(content)
    assert all("codebook" in entry.parts for entry in bill.entries[2:])
    assert Decoder(packed).run() == content


def test_sparse_weights_of_few_values(model_of, picture_weights):
    rng = np.random.default_rng(2)

    def made(*shape: int) -> np.ndarray:
        rows = np.exp(rng.standard_normal((shape[0], *[1] * (len(shape) - 1))))
        filled = rng.random(shape) < 0.06 * rows
        values = np.array([-0.3, -0.1, 0.1, 0.2], np.float32)
        return np.where(filled, rng.choice(values, shape), 0).astype(np.float32)

    tensors = {
        "rows": made(60, 50),
        "and rows": made(60, 50),
        "kernels": made(8, 10, 3, 3),
        "int8": (10 * made(30, 20, 2, 2)).astype(np.int8),
        "pixels": picture_weights(24, 11, 0.9),
    }
    content = model_of(tensors)
    packed, bill = encode(content)
    assert all("significance" in entry.parts for entry in bill.entries[2:])
    assert Decoder(packed).run() == content
