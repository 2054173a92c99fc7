"""What a set of timings allows one to say: medians, intervals, verdicts. Pure functions.

A session's timings are an array (rounds, burst): rounds are resampled, never single runs, since
the runs of one burst share their fate. Two sessions are resampled by the same rounds, which were
taken side by side, so that what disturbed both cancels. Neighbouring rounds are resampled in
blocks (Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of
Statistics 17, 1989), since disturbances last longer than a round.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["faster", "slower", "tie"]
Runs = NDArray[np.int64]

CONFIDENCE = 0.95


def resampled_rounds(rounds: int, resamples: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices (resamples, rounds) of a circular block bootstrap, blocks of rounds^(1/3)."""
    length = max(1, round(rounds ** (1 / 3)))
    blocks = math.ceil(rounds / length)
    starts = rng.integers(0, rounds, (resamples, blocks, 1))
    index = (starts + np.arange(length)) % rounds
    return index.reshape(resamples, -1)[:, :rounds]


def times_drawn(index: NDArray[np.intp]) -> NDArray[np.float64]:
    """How often each round is in each resample of `index`: (rounds, resamples)."""
    resamples, rounds = index.shape
    places = index + rounds * np.arange(resamples)[:, None]
    counts = np.bincount(places.reshape(-1), minlength=index.size)
    return np.ascontiguousarray(counts.reshape(resamples, rounds).T, dtype=np.float64)


def bootstrap_medians(runs: Runs, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of all runs of each resample; (resamples,) in the unit of `runs`.

    The runs are sorted once. A resample only says how often each round counts, and its median is
    where those counts reach a half: first among blocks of values, then within one.

    Args:
        runs: (rounds, burst).
        drawn: (rounds, resamples), from `times_drawn`.
    """
    order = np.argsort(runs, axis=None, kind="stable")
    values, owners = runs.reshape(-1)[order], order // runs.shape[1]
    middles = ((runs.size - 1) // 2, runs.size // 2)
    low, high = (values[places] for places in _reached(owners, drawn, middles))
    return np.asarray((low + high) / 2.0)


def _reached(
    owners: NDArray[np.intp], drawn: NDArray[np.float64], ranks: tuple[int, ...]
) -> Iterator[NDArray[np.intp]]:
    """For each rank (from 0), where each resample's value of it is among all sorted values.

    Args:
        owners: (values,): the round of each sorted value.
        drawn: (rounds, resamples): how often each resample has that round.
        ranks: Of the values of a resample.
    """
    rounds, resamples = drawn.shape
    length = math.isqrt(len(owners)) + 1
    blocks = np.arange(len(owners)) // length
    members = np.bincount(blocks * rounds + owners, minlength=(blocks[-1] + 1) * rounds)
    upto = np.cumsum(members.reshape(-1, rounds) @ drawn, axis=0)
    column = np.arange(resamples)
    for rank in ranks:
        block = np.count_nonzero(upto <= rank, axis=0)
        before = np.where(block > 0, upto[block - 1, column], 0.0)
        places = np.minimum(block * length + np.arange(length)[:, None], len(owners) - 1)
        inside = before + np.cumsum(drawn[owners[places], column], axis=0)
        yield block * length + np.count_nonzero(inside <= rank, axis=0)


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The central 95 % of the values."""
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100.0 - tail])
    return float(low), float(high)


def verdict(interval: tuple[float, float], floor: float) -> Verdict:
    """What a ratio's interval allows one to say.

    Args:
        interval: Of time over the reference's time.
        floor: The relative difference that two loads of one file may show (0.01 = 1 %).
    """
    low, high = interval
    if high < 1.0 / (1.0 + floor):
        return "faster"
    if low > 1.0 + floor:
        return "slower"
    return "tie"


def spread(runs: Runs) -> float:
    """How much the rounds' medians vary: a robust coefficient of variation (IQR / 1.349)."""
    medians = np.median(runs, axis=1)
    low, middle, high = np.percentile(medians, [25, 50, 75])
    return float((high - low) / 1.349 / middle) if middle > 0 else 0.0


def drift(runs: Runs) -> float:
    """Relative change of the median from the first third of the rounds to the last."""
    third = len(runs) // 3
    if third < 3:
        return 0.0
    first, last = np.median(runs[:third]), np.median(runs[-third:])
    return float(last / first - 1.0) if first > 0 else 0.0
