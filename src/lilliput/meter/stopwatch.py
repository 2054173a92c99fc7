"""The one stopwatch: interleaved comparison of loaded files, with the doubt in the result.

All files are timed in the same stretch of time, in rounds of shuffled order. In its turn a file
first runs unmeasured, since the file before it has taken the caches, and then in a timed burst:
the figure is that of a device which runs one network again and again. A file is called faster or
slower only when the bootstrap interval of the ratio of medians excludes 1 by more than the noise
floor; measuring stops when the interval is narrow enough or the time is up, never because it
excludes 1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lilliput.context import Progress, SilentProgress
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError, nearest
from lilliput.meter.host import state, usable_cores
from lilliput.meter.load import OtherLoad, tolerable_load
from lilliput.meter.readings import Readings, Timing
from lilliput.meter.rounds import UNMEASURED, Rounds, burst_size, warm_up
from lilliput.runtimes.base import Session
from lilliput.runtimes.opening import open_session, random_feeds
from lilliput.target import Target

__all__ = ["CONTROL", "Readings", "Timing", "collect", "compare", "compare_files"]

CONTROL = "reference, second copy"
PATIENCE = 0.2
"""Share of the time that may be spent on rounds that are thrown away."""


def compare(
    sessions: Mapping[str, Session],
    reference: str,
    *,
    min_rounds: int = 30,
    max_seconds: float = 20.0,
    resolution: float = 0.01,
    burst: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    control: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
    other_load: Callable[[], float] | None = None,
) -> dict[str, Timing]:
    """Time all sessions side by side and judge each against the reference.

    Args:
        sessions: {name: loaded file with its inputs bound}.
        reference: The name that ratios refer to.
        min_rounds: Rounds that are always taken, however long they last.
        max_seconds: No round begins after this many seconds (but for `min_rounds`).
        resolution: Relative difference to be told apart: rounds are added until every ratio's
            interval is at most this wide in all (±0.5 % by default).
        burst: Timed runs a turn; by default 5 to 8, more for files that take under 0.3 ms and
            fewer for those of which 5 would not fit.
        seed: Fixes the order of the turns and the resampling.
        progress: Told about the blocks of rounds.
        control: The name of a second copy of the reference: its distance from the reference
            raises the noise floor.
        clock: Seconds; tests give a scripted one.
        other_load: Cores in use by other processes since the last call.

    Returns:
        {name: Timing}, in the order of `sessions`.
    """
    readings = collect(
        sessions,
        reference,
        min_rounds=min_rounds,
        max_seconds=max_seconds,
        resolution=resolution,
        burst=burst,
        seed=seed,
        progress=progress,
        control=control,
        clock=clock,
        other_load=other_load,
    )
    return readings.timings(reference)


def collect(
    sessions: Mapping[str, Session],
    reference: str,
    *,
    min_rounds: int = 30,
    max_seconds: float = 20.0,
    resolution: float = 0.01,
    burst: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    control: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
    other_load: Callable[[], float] | None = None,
) -> Readings:
    """Take the rounds of `compare` (same arguments) and return them unjudged.

    Use it when more pairs than those with the reference are of interest: `Readings.verdict`.
    """
    _check_names(sessions, reference, control)
    before = state()
    begun = clock()
    taker = Rounds(
        sessions,
        _bursts(sessions, burst, turns=len(sessions) * min_rounds, max_seconds=max_seconds),
        rng=np.random.default_rng((seed, 3)),
        clock=clock,
        other_load=OtherLoad() if other_load is None else other_load,
        allowed=tolerable_load(usable_cores(), most_threads(sessions.values())),
        patience_seconds=PATIENCE * max_seconds,
    )

    def readings() -> Readings:
        return Readings(
            runs=taker.runs(),
            conditions={name: session.conditions for name, session in sessions.items()},
            seed=seed,
            control=(control, reference) if control else None,
            disturbed=taker.disturbed_share,
            facts={
                "other_load_cores": round(taker.mean_load, 3),
                "rounds_retaken": taker.retaken,
                "state": before,
            },
        )

    until = _until_narrow(
        taker,
        width=lambda: readings().widest(reference),
        resolution=resolution,
        min_rounds=min_rounds,
        timed_out=lambda: clock() - begun >= max_seconds,
    )
    label = f"timing {len(sessions)} files, pass"
    for _ in (progress or SilentProgress()).track(until, label=label):
        pass
    return readings()


def _until_narrow(
    taker: Rounds,
    *,
    width: Callable[[], float],
    resolution: float,
    min_rounds: int,
    timed_out: Callable[[], bool],
) -> Iterator[int]:
    """Take blocks until the intervals are narrow or the time is up; yields the rounds so far.

    The width is looked at seldom (every 1.4-fold number of rounds), so that a chance dip of it
    rarely ends the measurement.
    """
    check_at = min_rounds
    while True:
        taker.take_block(check_at - taker.rounds)
        yield taker.rounds
        if taker.rounds < min_rounds:
            continue
        if timed_out() or (taker.rounds >= check_at and width() <= resolution):
            return
        if taker.rounds >= check_at:
            check_at = math.ceil(1.4 * taker.rounds)


def _bursts(
    sessions: Mapping[str, Session], burst: int | None, *, turns: int, max_seconds: float
) -> dict[str, tuple[int, int]]:
    """{name: (unmeasured, timed) runs a turn}, after warming every session up."""
    sizes = {}
    for name, session in sessions.items():
        run_ns = warm_up(session)
        chosen = burst_size(run_ns, turns=turns, max_seconds=max_seconds)
        sizes[name] = chosen if burst is None else (UNMEASURED, burst)
    return sizes


def _check_names(sessions: Mapping[str, Session], reference: str, control: str | None) -> None:
    for name in (reference, control):
        if name is not None and name not in sessions:
            hint = nearest(name, sessions)
            raise LilliputError(f"no session {name!r} to compare with", hint=hint)


def most_threads(sessions: Iterable[Session]) -> int:
    """The largest number of threads that any of the sessions uses."""
    return max((int(session.conditions.get("threads", 1)) for session in sessions), default=1)


def compare_files(
    files: Mapping[str, tuple[Path, Target]],
    reference: str,
    *,
    batch: int = 1,
    feeds: Mapping[str, Sequence[Array]] | None = None,
    **settings: Any,
) -> dict[str, Timing]:
    """Load files, time them side by side with a second copy of the reference, and close them.

    Args:
        files: {name: (file, where it runs)}.
        reference: The name that ratios refer to.
        batch: Batch size of the random inputs, where the file leaves it free.
        feeds: Inputs by name, in place of random ones.
        settings: As for `compare`.

    Returns:
        {name: Timing}, in the order of `files`.
    """
    if reference not in files:
        raise LilliputError(
            f"no file {reference!r} to compare with", hint=nearest(reference, files)
        )
    wanted = {**files, CONTROL: files[reference]}
    sessions: dict[str, Session] = {}
    try:
        for name, (path, target) in wanted.items():
            session = sessions[name] = open_session(path, target)
            given = (feeds or {}).get(reference if name == CONTROL else name)
            session.bind(given or random_feeds(session.inputs, batch=batch))
        timings = compare(sessions, reference, control=CONTROL, **settings)
    finally:
        for session in sessions.values():
            session.close()
    return {name: timings[name] for name in files}
