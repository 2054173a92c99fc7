"""Taking turns: warm-up, burst sizes, shuffled rounds, and blocks that were disturbed retaken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lilliput.meter.statistics import Runs
from lilliput.runtimes.base import Session

UNMEASURED = 1
BURST_LEAST, BURST_MOST = 3, 8
TURN_NS = 1_500_000
BLOCK_SECONDS = 0.4


@dataclass(frozen=True)
class Pace:
    """How long to measure.

    Attributes:
        max_seconds: No round begins after this many seconds (but for `min_rounds`).
        min_rounds: Rounds that are always taken, however long they last.
        resolution: Relative difference to be told apart: rounds are added until every ratio's
            interval is at most this wide in all (±0.5 % by default).
        burst: Timed runs a turn; by default 3 to 8, more for files that take under 0.2 ms and
            fewer for those of which 3 would not fit.
    """

    max_seconds: float = 20.0
    min_rounds: int = 30
    resolution: float = 0.01
    burst: int | None = None


USUAL = Pace()


def warm_up(session: Session, *, most_bursts: int = 40, most_ns: int = 2_000_000_000) -> float:
    """Run until the time of a run is steady; returns it in nanoseconds.

    Steady: the medians of three bursts in a row within 5 %. A file that never gets there, or
    takes more than two seconds over it (the first run not counted), is measured as it is.
    """
    session.burst(1)
    medians: list[float] = []
    spent = 0
    while len(medians) < most_bursts and spent < most_ns:
        times = session.burst(3)
        spent += int(times.sum())
        medians.append(float(np.median(times)))
        last = medians[-3:]
        if len(last) == 3 and max(last) <= 1.05 * min(last):
            break
    return medians[-1]


def burst_size(run_ns: float, *, turns: int, max_seconds: float) -> tuple[int, int]:
    """(unmeasured, timed) runs of one turn.

    Args:
        run_ns: Time of one run.
        turns: Turns that must fit: sessions times the fewest rounds.
        max_seconds: The time for all of them.

    Three to eight timed runs; more where that makes less than 1.5 ms, since a switch of networks
    costs more than such a run; fewer where they would not fit into the time.
    """
    run_ns = max(run_ns, 1.0)
    wanted = max(BURST_LEAST, min(BURST_MOST, math.ceil(TURN_NS / run_ns)))
    if run_ns * BURST_MOST < TURN_NS:
        wanted = math.ceil(TURN_NS / run_ns)
    affordable = int(max_seconds * 1e9 / (run_ns * max(turns, 1)))
    if affordable >= wanted + UNMEASURED:
        return UNMEASURED, wanted
    return (1, max(1, affordable - 1)) if affordable >= 2 else (0, 1)


class Rounds:
    """Takes rounds of all sessions in shuffled order, block by block.

    A block is 0.4 s of rounds. If other processes used more cores meanwhile than are free, its
    rounds are thrown away and taken again, for as long as `patience_seconds` lasts; after that
    they are kept and counted as disturbed. The times themselves play no part in that choice.

    Between blocks, sessions may be exchanged for others of the same names.
    """

    def __init__(
        self,
        sessions: Mapping[str, Session],
        bursts: Mapping[str, tuple[int, int]],
        *,
        rng: np.random.Generator,
        clock: Callable[[], float],
        other_load: Callable[[], float],
        allowed: float,
        patience_seconds: float,
    ) -> None:
        self._sessions, self._bursts, self._rng = sessions, bursts, rng
        self._clock, self._other_load, self._allowed = clock, other_load, allowed
        self._patience = patience_seconds
        self._kept: dict[str, list[Runs]] = {name: [] for name in sessions}
        self._loads: list[tuple[int, float]] = []
        self._disturbed = 0
        self.retaken = 0
        other_load()

    @property
    def rounds(self) -> int:
        """Rounds kept so far."""
        return sum(count for count, _ in self._loads)

    @property
    def disturbed_share(self) -> float:
        """Share of the kept rounds during which other processes took our cores."""
        return self._disturbed / max(self.rounds, 1)

    @property
    def mean_load(self) -> float:
        """Cores that other processes used, over the kept rounds."""
        return sum(count * load for count, load in self._loads) / max(self.rounds, 1)

    def runs(self) -> dict[str, Runs]:
        """{name: (rounds, burst) nanoseconds}."""
        return {name: np.stack(turns) for name, turns in self._kept.items()}

    def take(self, rounds: int) -> None:
        """Take so many more rounds."""
        wanted = self.rounds + rounds
        while self.rounds < wanted:
            self.take_block(wanted - self.rounds)

    def take_block(self, most_rounds: int) -> None:
        """Take rounds for 0.4 s, `most_rounds` of them at most and one at least."""
        begun = self._clock()
        taken: list[dict[str, Runs]] = []
        while not taken or (len(taken) < most_rounds and self._clock() - begun < BLOCK_SECONDS):
            taken.append(self._round())
        load = self._other_load()
        disturbed = load > self._allowed
        spent = self._clock() - begun
        if disturbed and self._patience >= spent:
            self._patience -= spent
            self.retaken += len(taken)
            return
        self._disturbed += len(taken) * disturbed
        self._loads.append((len(taken), load))
        for one in taken:
            for name, times in one.items():
                self._kept[name].append(times)

    def _round(self) -> dict[str, Runs]:
        names = list(self._sessions)
        taken = {}
        for position in self._rng.permutation(len(names)):
            name = names[position]
            unmeasured, timed = self._bursts[name]
            if unmeasured:
                self._sessions[name].burst(unmeasured)
            taken[name] = self._sessions[name].burst(timed)
        return taken
