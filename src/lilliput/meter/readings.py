"""What one stretch of interleaved timing found, and what it allows one to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lilliput.measurement import Measurement
from lilliput.meter import statistics
from lilliput.meter.statistics import Runs, Verdict
from lilliput.noun import Noun

FLOOR = 0.005
"""A smaller difference is called a tie, however sure it is."""
FLOOR_BETWEEN_PROCESSES = 0.05
"""In two processes, by several percent."""

MEDIAN_LIMIT = 0.10
RATIO_LIMIT = 0.05
"""Widths of intervals, relative, beyond which a figure is called unstable."""

DRIFT_LIMIT = 0.10
DISTURBED_LIMIT = 0.25


class Timing(Noun):
    """Latency of one file, and its ratio to the reference taken in the same rounds.

    Times are in milliseconds. `ratio` is the middle of the ratios that were taken round by round,
    which on a machine that changes its pace is surer than the ratio of the medians. `interval_ms`
    and `ratio_interval` are 95 % bootstrap intervals. `unstable` rows say why in
    `conditions["unstable_because"]`.
    """

    median_ms: float
    p90_ms: float
    min_ms: float
    interval_ms: tuple[float, float]
    runs: int
    rounds: int
    ratio: float = 1.0
    ratio_interval: tuple[float, float] = (1.0, 1.0)
    verdict: Verdict = "tie"
    unstable: bool = False
    conditions: dict[str, Any] = Field(default_factory=dict)

    def measurements(self) -> tuple[Measurement, ...]:
        """The figures "latency", "latency_p90" (ms) and "ratio" (to the reference)."""
        told = {
            **self.conditions,
            "runs": self.runs,
            "verdict": self.verdict,
            "unstable": self.unstable,
        }
        return (
            Measurement(
                quantity="latency",
                value=self.median_ms,
                unit="ms",
                interval=self.interval_ms,
                conditions=told,
            ),
            Measurement(quantity="latency_p90", value=self.p90_ms, unit="ms", conditions=told),
            Measurement(
                quantity="ratio",
                value=self.ratio,
                unit="",
                interval=self.ratio_interval,
                conditions=told,
            ),
        )


@dataclass(frozen=True)
class Readings:
    """All that was timed: {name: (rounds, burst) nanoseconds}, of the same rounds.

    The rounds are those of `loads` loads, one after another and equally many of each.
    """

    runs: Mapping[str, Runs]
    conditions: Mapping[str, Mapping[str, Any]]
    seed: int = 0
    loads: int = 1
    control: tuple[str, str] | None = None
    disturbed: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        return min((len(runs) for runs in self.runs.values()), default=0)

    def ratio(
        self, name: str, reference: str, *, resamples: int = 1000
    ) -> tuple[float, tuple[float, float]]:
        """Time of `name` over that of `reference`, and its 95 % interval.

        Of files that were loaded once, the interval is widened by how far two copies of one file
        are from each other.
        """
        if name == reference:
            return 1.0, (1.0, 1.0)
        blocks = self._blocks(name, reference)
        drawn = np.random.default_rng((self.seed, 7)).integers(
            0, len(blocks), (resamples, len(blocks))
        )
        low, high = statistics.percentile_interval(
            np.exp(statistics.midmean(blocks[drawn])), len(blocks)
        )
        wider = 1.0
        if self.control is not None and name != self.control[0]:
            wider = float(np.exp(abs(statistics.midmean(self._blocks(*self.control)))))
        return float(np.exp(statistics.midmean(blocks))), (low / wider, high * wider)

    def _blocks(self, name: str, reference: str) -> NDArray[np.float64]:
        return statistics.ratios_of_blocks(self.runs[name], self.runs[reference], self.loads)

    def floor(self, name: str, reference: str) -> float:
        """The relative difference below which these two are not told apart."""
        ours, theirs = self.conditions[name], self.conditions[reference]
        apart = ours.get("process") != theirs.get("process")
        return FLOOR_BETWEEN_PROCESSES if apart else FLOOR

    def verdict(self, name: str, reference: str) -> Verdict:
        """Whether `name` is faster or slower than `reference`, or nobody can say."""
        _, interval = self.ratio(name, reference)
        return statistics.verdict(interval, self.floor(name, reference))

    def widest(self, reference: str) -> float:
        """Width of the widest interval of a ratio to the reference, relative to the ratio."""
        widths = [0.0]
        for name in self.runs:
            value, (low, high) = self.ratio(name, reference, resamples=200)
            widths.append((high - low) / value)
        return max(widths)

    def timings(self, reference: str) -> dict[str, Timing]:
        """Every session's figures, judged against `reference`."""
        return {name: self._timing(name, reference) for name in self.runs}

    def _timing(self, name: str, reference: str) -> Timing:
        runs = self.runs[name]
        milliseconds = runs.reshape(-1) * 1e-6
        median, interval_ms = float(np.median(milliseconds)), self._interval_ms(runs)
        value, interval = self.ratio(name, reference)
        floor = self.floor(name, reference)
        reasons = [*self._disturbances(runs), *_unsure("time", median, interval_ms, MEDIAN_LIMIT)]
        reasons += _unsure("ratio", value, interval, RATIO_LIMIT)
        conditions = {
            **self.conditions[name],
            **self.facts,
            "loads": self.loads,
            "reference": reference,
            "noise_floor": floor,
            "burst": runs.shape[1],
        }
        if reasons:
            conditions["unstable_because"] = reasons
        return Timing(
            median_ms=median,
            p90_ms=float(np.percentile(milliseconds, 90)),
            min_ms=float(milliseconds.min()),
            interval_ms=interval_ms,
            runs=milliseconds.size,
            rounds=len(runs),
            ratio=value,
            ratio_interval=interval,
            verdict=statistics.verdict(interval, floor) if name != reference else "tie",
            unstable=bool(reasons),
            conditions=conditions,
        )

    def _disturbances(self, runs: Runs) -> list[str]:
        """What went on that an interval does not tell of, in words."""
        doubts = []
        if self.disturbed > DISTURBED_LIMIT:
            doubts.append(f"other processes used the cores in {self.disturbed:.0%} of the time")
        if abs(drift := statistics.drift(runs)) > DRIFT_LIMIT:
            doubts.append(
                f"it got {abs(drift):.0%} {'slower' if drift > 0 else 'faster'} while being timed "
                "(clock, temperature or other load)"
            )
        return doubts

    def _interval_ms(self, runs: Runs) -> tuple[float, float]:
        """The 95 % interval of the median of all runs."""
        medians = statistics.bootstrap_medians(runs, self._times_drawn) * 1e-6
        return statistics.percentile_interval(medians, self.rounds // self._length)

    @property
    def _length(self) -> int:
        return statistics.block_length(self.rounds, self.loads)

    @cached_property
    def _times_drawn(self) -> NDArray[np.float64]:
        """How often each round is in each resample: the same for all files."""
        rng = np.random.default_rng((self.seed, 7))
        index = statistics.resampled_rounds(self.rounds, 1000, rng, length=self._length)
        return statistics.times_drawn(index)


def _unsure(what: str, value: float, interval: tuple[float, float], limit: float) -> list[str]:
    """That its 95 % interval is wider than the limit, in words; nothing if it is not."""
    half = (interval[1] - interval[0]) / (2.0 * value)
    return [f"its {what} is known to ±{half:.0%} only"] if 2.0 * half > limit else []
