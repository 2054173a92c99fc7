"""Progress in a terminal: a bar a job, inner ones below outer ones, gone when they are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from lilliput.progress import SHOW_AFTER, Job, length_of

T = TypeVar("T")


class _Told(ProgressColumn):
    """Count, time and rest of a job."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock

    def render(self, task: Task) -> Text:
        job: Job = task.fields["job"]
        return Text(job.text(self._clock()), style="dim")


class _LateBars(Bars):
    """Bars that show only when their job has taken a while."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def get_renderables(self) -> Iterable[RenderableType]:
        now = self.clock()
        late = [task for task in self.tasks if now - task.fields["job"].began >= SHOW_AFTER]
        yield self.make_tasks_table(late)


class BarProgress:
    """Bars on a terminal; lines said meanwhile go above them."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._console = Console(file=stream)
        self._bars: _LateBars | None = None
        self._depth = 0

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items under a bar with their label, count and time left."""
        job = Job(label, length_of(items, total), self._clock())
        bars = self._opened()
        shown = f"{'  ' * self._depth}{label}"
        task = bars.add_task(shown, total=job.total, job=job)
        self._depth += 1
        try:
            for item in items:
                yield item
                job.done += 1
                bars.update(task, completed=job.done)
        finally:
            self._depth -= 1
            bars.remove_task(task)
            if self._depth == 0:
                bars.stop()
                self._bars = None

    def say(self, line: str) -> None:
        """One line, above the bars if there are any."""
        self._console.print(Text(line))

    def _opened(self) -> _LateBars:
        if self._bars is None:
            self._bars = _LateBars(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                _Told(self._clock),
                console=self._console,
                transient=True,
                refresh_per_second=4,
            )
            self._bars.clock = self._clock
            self._bars.start()
        return self._bars
