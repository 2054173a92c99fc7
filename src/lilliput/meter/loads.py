"""Files on their targets, loaded again and again, since each load lies elsewhere in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np

from lilliput.data.dataset import Array
from lilliput.meter.rounds import Pace
from lilliput.runtimes.base import RUNTIMES, Session
from lilliput.runtimes.hosted import Hosted
from lilliput.runtimes.opening import open_session, random_feeds
from lilliput.target import Target

CONTROL = "reference, second copy"

LEAST_LOADS = 12
"""Two in opposite order are one figure, and fewer than six figures tell too little."""

WORTH = 2.0
"""Rounds take at least so many times as long as the loading before them."""

LEAST_SECONDS = 0.2
"""Of a load's rounds: other load is counted by the kernel in steps of 10 ms."""


class Loads:
    """Files loaded on their targets: `sessions`, opened in `seconds`. `close` closes them.

    Args:
        files: {name: (file, where it runs)}.
        feeds: {name: inputs}, in place of random ones.
        batch: Batch size of random inputs, where a file leaves it free.
        rng: Shuffles the order in which files are loaded.
        clock: Seconds; tests give a scripted one.
    """

    def __init__(
        self,
        files: Mapping[str, tuple[Path, Target]],
        *,
        feeds: Mapping[str, Sequence[Array]] | None = None,
        batch: int = 1,
        rng: np.random.Generator,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._files, self._feeds, self._batch = dict(files), dict(feeds or {}), batch
        self._rng, self._clock = rng, clock
        self._back: list[str] = []
        self._hosts, self._held = ExitStack(), False
        self.sessions: dict[str, Session] = {}
        self.seconds = 0.0

    def open(self) -> None:
        """Load every file anew, inputs bound: in shuffled order, the next time in its reverse."""
        begun = self._clock()
        self._close_files()
        order, self._back = self._back, []
        if not order:
            names = list(self._files)
            order = [names[index] for index in self._rng.permutation(len(names))]
            self._back = order[::-1]
        for name in order:
            self.sessions[name] = self._opened(name)
        if not self._held:
            self._hold_hosts()
        self.seconds = self._clock() - begun

    def open_control(self, reference: str) -> str:
        """Load a second copy of the reference; returns its name, `CONTROL`."""
        self._files[CONTROL] = self._files[reference]
        if reference in self._feeds:
            self._feeds[CONTROL] = self._feeds[reference]
        self.sessions[CONTROL] = self._opened(CONTROL)
        return CONTROL

    def close(self) -> None:
        """Close all that is loaded, and end the child processes that it was loaded in."""
        self._close_files()
        self._hosts.close()

    def _hold_hosts(self) -> None:
        """Files loaded anew stay in one child process: in another, times differ by percents."""
        self._held = True
        for name, threads in {
            (target.runtime, target.threads) for _, target in self._files.values()
        }:
            runtime = RUNTIMES[name]
            if isinstance(runtime, Hosted):
                self._hosts.enter_context(runtime.held(threads))

    def _close_files(self) -> None:
        while self.sessions:
            self.sessions.popitem()[1].close()

    def _opened(self, name: str) -> Session:
        return opened(*self._files[name], feeds=self._feeds.get(name), batch=self._batch)


def opened(
    path: Path, target: Target, *, feeds: Sequence[Array] | None = None, batch: int = 1
) -> Session:
    """The file loaded on the target with these inputs bound, or with random ones."""
    session = open_session(path, target)
    try:
        given = feeds or random_feeds(session.inputs, batch=batch)
        session.bind(given)
        session.conditions = {**session.conditions, "batch": examples_in(given)}
    except BaseException:
        session.close()
        raise
    return session


def examples_in(feeds: Sequence[Array]) -> int:
    """How many examples the inputs hold; 1 where they have no axis for them."""
    return int(feeds[0].shape[0]) if feeds and feeds[0].ndim else 1


@contextmanager
def loaded_once(files: Mapping[str, Path], target: Target) -> Iterator[dict[str, Session]]:
    """{name: the file loaded on the target, random inputs bound}; all are closed at the end."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(closing(opened(path, target))) for name, path in files.items()
        }


def rounds_a_load(loading: float, a_round: float, pace: Pace) -> int | None:
    """Rounds that each load is worth; None where enough loads do not fit into the time.

    Args:
        loading: Seconds to load all files and warm them up.
        a_round: Seconds of a round.
        pace: The fewest rounds in all, and the time for everything.
    """
    seconds = max(LEAST_SECONDS, WORTH * loading)
    least = math.ceil(pace.min_rounds / LEAST_LOADS)
    wanted = max(least, math.ceil(seconds / max(a_round, 1e-9)))
    fitting = math.floor((pace.max_seconds / LEAST_LOADS - loading) / max(a_round, 1e-9))
    return min(wanted, fitting) if fitting >= least else None
