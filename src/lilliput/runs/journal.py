"""The run's memory: lines of JSON that are on disk before anyone relies on them.

Each line carries its number and a checksum of its own text. A crash can only harm the last line,
which nobody was told about yet; it is dropped. Harm anywhere else was done by hand, and is an
error that names the line, since a run that goes on from a changed past proves nothing.
"""

from __future__ import annotations

import io
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from lilliput.atomic import write_all, writing
from lilliput.attempts import FAILED
from lilliput.errors import LilliputError

ONCE = "once"
_CRC = ',"crc":"'


@dataclass(frozen=True)
class Entry:
    """One event: its number (from 1), its time in UTC (ISO 8601), its name and its facts."""

    number: int
    time: str
    event: str
    facts: Mapping[str, Any]

    def to_line(self) -> bytes:
        """The entry as one line of the file, checksum and newline included."""
        body = {"n": self.number, "t": self.time, "event": self.event, "facts": self.facts}
        text = json.dumps(body, default=_as_json, separators=(",", ":"))[:-1]
        return f'{text}{_CRC}{_checksum(text)}"}}\n'.encode()

    @classmethod
    def from_line(cls, line: bytes) -> Entry | None:
        """The entry of one line (with or without its newline); None if the text was changed."""
        try:
            text, _, tail = line.decode().rstrip("\n").rpartition(_CRC)
            if tail != f'{_checksum(text)}"}}':
                return None
            body = json.loads(f"{text}}}")
            return cls(body["n"], body["t"], body["event"], body["facts"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


def read_entries(path: Path) -> list[Entry]:
    """All events of a journal, oldest first; a torn last line is left out.

    Raises:
        LilliputError: A line was changed, removed or added; it is named.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Entry], int]:
    """The entries, and the length in bytes of the part of the file that holds them."""
    content = path.read_bytes() if path.exists() else b""
    lines = io.BytesIO(content).readlines()
    entries: list[Entry] = []
    kept = 0
    for number, line in enumerate(lines, 1):
        entry = Entry.from_line(line)
        if entry is None and number == len(lines) and not _is_json(line):
            break
        if entry is None or entry.number != number:
            raise LilliputError(
                "this line was not written by lilliput, or was changed since",
                at=f"{path}:{number}",
                hint=f"restore it, or keep the {number - 1} lines before it and delete the rest: "
                "`lilliput resume` does again what they held",
            )
        entries.append(entry)
        kept += len(line)
    return entries, kept


def _is_json(line: bytes) -> bool:
    """Whether the line is whole: then it was edited, since a crash leaves none that parses."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


class JournalFile:
    """An open journal; only one may be open on a file (the run's lock sees to it).

    Args:
        path: The file, made if there is none. A torn last line is cut off.
        now: Gives the time of an entry.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] | None = None) -> None:
        self.path = path
        self._now = now or (lambda: datetime.now(UTC))
        self._guard = threading.RLock()
        self._underway: set[str] = set()
        self._listeners: list[Callable[[Entry], None]] = []
        self._entries, self._size = _read(path)
        self._results = {
            entry.facts["key"]: entry.facts["result"]
            for entry in self._entries
            if entry.event == ONCE
        }
        with writing(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._cut_after(self._size)
                self._mend_last_newline()
            except BaseException:
                self.close()
                raise

    def _mend_last_newline(self) -> None:
        """An editor may have taken the last newline from a line that is whole."""
        if self._size and os.pread(self._handle, 1, self._size - 1) != b"\n":
            write_all(self._handle, b"\n")
            self._size += 1
        os.fsync(self._handle)

    def _cut_after(self, size: int) -> None:
        os.ftruncate(self._handle, size)
        os.lseek(self._handle, size, os.SEEK_SET)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All events so far, oldest first."""
        return tuple(self._entries)

    def follow(self, listener: Callable[[Entry], None]) -> None:
        """Show `listener` all events so far, then each new one as soon as it is on disk."""
        with self._guard:
            for entry in self._entries:
                listener(entry)
            self._listeners.append(listener)

    def note(self, event: str, /, **facts: Any) -> None:
        """Append one event; on disk when this returns.

        Raises:
            CannotWrite: The disk is full or broken; the journal is as it was before.
            LilliputError: `facts` do not go to JSON; the journal is as it was before.
        """
        self._append(event, facts)

    def once(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do `work` unless it was done in this run, in this process or an earlier one.

        What comes back is always what JSON made of the result, so that a run that was resumed
        sees the same values as one that was not. If `work` raises, nothing is remembered.

        Raises:
            LilliputError: `work` asks for its own key.
        """
        with self._guard:
            if key in self._results:
                return _copied(self._results[key])
            if key in self._underway:
                raise LilliputError(f"the journal key {key!r} is used inside its own work")
            self._underway.add(key)
        try:
            result = work()
            entry = self._append(ONCE, {"key": key, "result": result})
            self._results[key] = entry.facts["result"]
            return _copied(self._results[key])
        finally:
            self._underway.discard(key)

    def recall(self, key: str) -> dict[str, Any] | None:
        """What the work of this key came to, if it is done."""
        with self._guard:
            return _copied(self._results[key]) if key in self._results else None

    def forget_failures(self) -> None:
        """From now on, what failed in earlier sessions counts as not done.

        Nor do sums over results, failed ones among them.
        """
        with self._guard:
            gone = {FAILED, "generation"}
            self._results = {k: r for k, r in self._results.items() if gone.isdisjoint(r or {})}

    def __contains__(self, key: str) -> bool:
        """Whether the work of this key is done."""
        return key in self._results

    def _append(self, event: str, facts: Mapping[str, Any]) -> Entry:
        with self._guard:
            entry = Entry(
                len(self._entries) + 1,
                self._now().isoformat(timespec="milliseconds"),
                event,
                facts,
            )
            try:
                line = entry.to_line()
            except (TypeError, ValueError) as error:
                raise LilliputError(
                    f"the facts of {event!r} do not go to JSON: {error}", at=str(self.path)
                ) from error
            stored = Entry.from_line(line)
            assert stored is not None
            self._take(stored, line)
            for listener in self._listeners:
                listener(stored)
            return stored

    def _take(self, entry: Entry, line: bytes) -> None:
        """Onto the disk and into memory, or, whatever comes between (Ctrl-C too), into neither."""
        size, count = self._size, len(self._entries)
        try:
            with writing(self.path):
                write_all(self._handle, line)
                os.fsync(self._handle)
            self._entries.append(entry)
            self._size += len(line)
        except BaseException:
            del self._entries[count:]
            self._size = size
            with writing(self.path):
                self._cut_after(size)
            raise

    def close(self) -> None:
        """Let go of the file; nothing can be noted afterwards."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> JournalFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _copied(result: dict[str, Any]) -> dict[str, Any]:
    """A copy that the caller may change without changing what is remembered."""
    copy: dict[str, Any] = json.loads(json.dumps(result))
    return copy


def _as_json(value: Any) -> Any:
    """What JSON lacks: paths, our nouns, numpy's numbers and arrays."""
    if isinstance(value, Path):
        return str(value)
    for method in ("model_dump", "tolist"):
        if hasattr(value, method):
            return value.model_dump(mode="json") if method == "model_dump" else value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
