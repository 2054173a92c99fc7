"""How far a long job is: bars in a terminal, now and then a line elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import TextIO, TypeVar

from lilliput.units import format_seconds

T = TypeVar("T")

SHOW_AFTER = 2.0
"""Seconds before a job is worth a line."""
EVERY = 10.0
"""Seconds between lines where they cannot be overwritten."""


@dataclass
class Job:
    """Something that is being counted through."""

    label: str
    total: int | None
    began: float
    done: int = 0

    def seconds_left(self, now: float) -> float | None:
        """The time that the rest takes at the pace so far; None while nothing can be said."""
        if self.total is None or self.done == 0:
            return None
        return (now - self.began) / self.done * max(self.total - self.done, 0)

    def text(self, now: float) -> str:
        """`"3/10, 40 s, about 1 min 33 s left"`."""
        count = f"{self.done}/{self.total}" if self.total is not None else str(self.done)
        left = self.seconds_left(now)
        tail = f", about {format_seconds(left)} left" if left else ""
        return f"{count}, {format_seconds(now - self.began)}{tail}"


def length_of(items: Iterable[object], total: int | None) -> int | None:
    """How many there will be, if that can be known."""
    if total is not None:
        return total
    return len(items) if isinstance(items, Sized) else None


class LineProgress:
    """Plain lines on a stream that is no terminal: a log, a pipe, a CI job."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._jobs: list[Job] = []
        self._last = clock()

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items; a line at most every 10 s, for jobs that take more than 2 s."""
        job = Job(label, length_of(items, total), self._clock())
        self._jobs.append(job)
        try:
            for item in items:
                yield item
                job.done += 1
                self._tell(job)
        finally:
            self._jobs.remove(job)

    def say(self, line: str) -> None:
        """One line, now."""
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def _tell(self, job: Job) -> None:
        now = self._clock()
        if now - self._last >= EVERY and now - job.began >= SHOW_AFTER:
            self._last = now
            self.say(" › ".join(f"{j.label} {j.text(now)}" for j in self._jobs))
