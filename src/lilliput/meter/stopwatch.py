"""The one stopwatch: interleaved comparison of files, with the doubt in the result.

All files are timed in the same stretch of time, in rounds of shuffled order. In its turn a file
first runs unmeasured, since the file before it has taken the caches, and then in a timed burst:
the figure is that of a device which runs one network again and again. Where a file happens to lie
in memory makes it faster or slower for as long as it is loaded, so files are loaded again and
again, in shuffled order too. A file is called faster or slower only when the bootstrap interval of
its ratio excludes 1 by more than the noise floor; measuring stops when the interval is narrow
enough or the time is up, never because it excludes 1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lilliput.context import Progress, SilentProgress
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError, nearest
from lilliput.meter.host import state, usable_cores
from lilliput.meter.load import OtherLoad, tolerable_load
from lilliput.meter.loads import LEAST_LOADS, Loads, rounds_a_load
from lilliput.meter.readings import Readings, Timing
from lilliput.meter.rounds import UNMEASURED, USUAL, Pace, Rounds, burst_size, warm_up
from lilliput.runtimes.base import Session
from lilliput.target import Target

__all__ = ["USUAL", "Pace", "Readings", "Timing", "collect", "compare_files"]

PATIENCE = 0.2
"""Share of the time that may be spent on rounds that are thrown away."""


def collect(
    sessions: Mapping[str, Session],
    reference: str,
    pace: Pace = USUAL,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    control: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
    other_load: Callable[[], float] | None = None,
    loads: Loads | None = None,
) -> Readings:
    """Time all sessions side by side; returns what was read, to be judged.

    Args:
        sessions: {name: loaded file with its inputs bound}.
        reference: The name that ratios refer to.
        pace: How long to measure.
        seed: Fixes the order of the turns and the resampling.
        progress: Told about the blocks of rounds.
        control: The name of a second copy of the reference: its distance from the reference
            widens every interval.
        clock: Seconds; tests give a scripted one.
        other_load: Cores in use by other processes since the last call.
        loads: What opened the sessions: opens them anew before each stretch of rounds. Where
            there is no time for that, it opens a second copy of the reference as control.
    """
    _check_names(sessions, reference, control)
    before, begun = state(), clock()
    run_ns = {name: warm_up(session) for name, session in sessions.items()}
    sizes = _bursts(run_ns, pace)
    stretch = loads and rounds_a_load(
        loads.seconds + clock() - begun,
        sum(run_ns[name] * sum(size) for name, size in sizes.items()) * 1e-9,
        pace,
    )
    if loads and not stretch:
        control = loads.open_control(reference)
        sizes[control] = sizes[reference]
        warm_up(sessions[control])
    taker = Rounds(
        sessions,
        sizes,
        rng=np.random.default_rng((seed, 3)),
        clock=clock,
        other_load=OtherLoad() if other_load is None else other_load,
        allowed=tolerable_load(usable_cores(), most_threads(sessions.values())),
        patience_seconds=PATIENCE * pace.max_seconds,
    )
    copies = (control, reference) if control else None
    watch = _Watch(taker, sessions, before, seed, loads if stretch else None, stretch or 0, copies)
    until = _until_narrow(
        watch,
        width=lambda: watch.readings().widest(reference),
        resolution=pace.resolution,
        min_rounds=max(pace.min_rounds, LEAST_LOADS * watch.stretch),
        timed_out=lambda: clock() - begun >= pace.max_seconds,
    )
    label = f"timing {len(sessions)} files, pass"
    for _ in (progress or SilentProgress()).track(until, label=label):
        pass
    return watch.readings()


@dataclass(frozen=True)
class _Watch:
    """A comparison as it goes on. `stretch`: rounds of each load, 0 where files are loaded once."""

    taker: Rounds
    sessions: Mapping[str, Session]
    before: Mapping[str, Any]
    seed: int
    loads: Loads | None
    stretch: int
    control: tuple[str, str] | None

    def grow(self, most: int) -> None:
        """Take the rounds of two loads; so many rounds at most where there is only one."""
        if self.loads is None:
            self.taker.take_block(most)
            return
        for _ in range(2):
            if self.taker.rounds:
                self.loads.open()
                for session in self.sessions.values():
                    warm_up(session)
            self.taker.take(self.stretch)

    def readings(self) -> Readings:
        """What was read so far."""
        return Readings(
            runs=self.taker.runs(),
            conditions={name: session.conditions for name, session in self.sessions.items()},
            seed=self.seed,
            loads=self.taker.rounds // self.stretch if self.stretch else 1,
            control=self.control,
            disturbed=self.taker.disturbed_share,
            facts={
                "other_load_cores": round(self.taker.mean_load, 3),
                "rounds_retaken": self.taker.retaken,
                "state": self.before,
            },
        )


def _until_narrow(
    watch: _Watch,
    *,
    width: Callable[[], float],
    resolution: float,
    min_rounds: int,
    timed_out: Callable[[], bool],
) -> Iterator[int]:
    """Take rounds until the intervals are narrow or the time is up; yields the rounds so far.

    The width is looked at seldom (every 1.4-fold number of rounds), so that a chance dip of it
    rarely ends the measurement.
    """
    check_at = min_rounds
    while True:
        watch.grow(check_at - watch.taker.rounds)
        rounds = watch.taker.rounds
        yield rounds
        if rounds < min_rounds:
            continue
        if timed_out() or (rounds >= check_at and width() <= resolution):
            return
        if rounds >= check_at:
            check_at = math.ceil(1.4 * rounds)


def _bursts(run_ns: Mapping[str, float], pace: Pace) -> dict[str, tuple[int, int]]:
    """{name: (unmeasured, timed) runs a turn}."""
    if pace.burst is not None:
        return dict.fromkeys(run_ns, (UNMEASURED, pace.burst))
    turns = len(run_ns) * pace.min_rounds
    return {
        name: burst_size(each, turns=turns, max_seconds=pace.max_seconds)
        for name, each in run_ns.items()
    }


def _check_names(sessions: Mapping[str, Session], reference: str, control: str | None) -> None:
    for name in (reference, control):
        if name is not None and name not in sessions:
            hint = nearest(name, sessions)
            raise LilliputError(f"no session {name!r} to compare with", hint=hint)


def _refuse_different_batches(sessions: Mapping[str, Session]) -> None:
    """Times of one example and of eight say nothing of each other."""
    sizes = {name: session.conditions["batch"] for name, session in sessions.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
        raise LilliputError(
            f"the files take different numbers of examples at a time: {told}",
            hint="measure them with a batch that all of them take, as --batch 1",
        )


def most_threads(sessions: Iterable[Session]) -> int:
    """The largest number of threads that any of the sessions uses."""
    return max((int(session.conditions.get("threads", 1)) for session in sessions), default=1)


def compare_files(
    files: Mapping[str, tuple[Path, Target]],
    reference: str,
    pace: Pace = USUAL,
    *,
    batch: int = 1,
    feeds: Mapping[str, Sequence[Array]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
    other_load: Callable[[], float] | None = None,
) -> dict[str, Timing]:
    """Load files again and again, time them side by side, and judge each against the reference.

    Args:
        files: {name: (file, where it runs)}.
        reference: The name that ratios refer to.
        pace: How long to measure.
        batch: Batch size of the random inputs, where the file leaves it free.
        feeds: Inputs by name, in place of random ones.
        seed: Fixes the order of loads and turns, and the resampling.
        progress: Told about the blocks of rounds.
        clock: Seconds; tests give a scripted one.
        other_load: Cores in use by other processes since the last call.

    Returns:
        {name: Timing}, in the order of `files`.
    """
    if reference not in files:
        raise LilliputError(
            f"no file {reference!r} to compare with", hint=nearest(reference, files)
        )
    rng = np.random.default_rng((seed, 5))
    with closing(Loads(files, feeds=feeds, batch=batch, rng=rng, clock=clock)) as loads:
        loads.open()
        _refuse_different_batches({name: loads.sessions[name] for name in files})
        readings = collect(
            loads.sessions,
            reference,
            pace,
            seed=seed,
            progress=progress,
            clock=clock,
            other_load=other_load,
            loads=loads,
        )
    timings = readings.timings(reference)
    return {name: timings[name] for name in files}
