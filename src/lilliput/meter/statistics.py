"""What a set of timings allows one to say: medians, intervals, verdicts. Pure functions.

A session's timings are an array (rounds, burst). Two sessions are compared round by round: the
turns of a round follow each other, so that what disturbed both cancels in their ratio.

What is resampled are blocks, never single rounds. Where files were loaded several times, a block is
two loads, the second in the reverse order of the first: rounds of a load share a placement in
memory, and being loaded first makes a file slower (Kalibera and Jones, "Rigorous benchmarking in
reasonable time", ISMM 2013). Otherwise it is a few neighbours, since disturbances last longer than
a round (Carlstein, "The use of subseries values for estimating the variance of a general statistic
from a stationary sequence", Annals of Statistics 14, 1986).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["faster", "slower", "tie"]
Runs = NDArray[np.int64]

TAIL = 0.025
"""Beyond each end of a 95 % interval."""


def block_length(rounds: int, loads: int = 1) -> int:
    """Rounds that are drawn together: those of two loads, or rounds^(1/3) of the only one."""
    return 2 * rounds // loads if loads > 1 else max(1, round(rounds ** (1 / 3)))


def resampled_rounds(
    rounds: int, resamples: int, rng: np.random.Generator, *, length: int
) -> NDArray[np.intp]:
    """Indices (resamples, rounds) of a bootstrap of blocks of so many rounds; the last one fits."""
    blocks = math.ceil(rounds / length)
    starts = length * rng.integers(0, max(1, rounds // length), (resamples, blocks, 1))
    index = starts + np.arange(length)
    return index.reshape(resamples, -1)[:, :rounds]


def ratios_of_blocks(ours: Runs, theirs: Runs, loads: int = 1) -> NDArray[np.float64]:
    """(blocks,): log of time over time, the mean of two loads' medians or a few rounds' median.

    Args:
        ours: (rounds, burst) of the one.
        theirs: (rounds, burst) of the other, in the same rounds.
        loads: How often both were loaded: an even number, or once.
    """
    logs = np.log(np.median(ours, axis=1) / np.median(theirs, axis=1))
    if loads > 1:
        return np.asarray(np.median(logs.reshape(loads, -1), axis=1).reshape(-1, 2).mean(axis=1))
    length = block_length(len(logs))
    whole = logs[: len(logs) - len(logs) % length]
    return np.asarray(np.median(whole.reshape(-1, length), axis=1))


def midmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the middle half along the last axis: near the mean, and deaf to a bad block."""
    count = values.shape[-1]
    beyond = count // 4
    return np.asarray(np.sort(values, axis=-1)[..., beyond : count - beyond].mean(axis=-1))


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


def percentile_interval(values: NDArray[np.float64], draws: int) -> tuple[float, float]:
    """The 95 % interval of bootstrap values.

    Args:
        values: One of each resample.
        draws: Independent things that a resample draws: blocks of rounds, loads, or examples.
    """
    tail = 100.0 * expanded_tail(draws)
    low, high = np.percentile(values, [tail, 100.0 - tail])
    return float(low), float(high)


def expanded_tail(draws: int) -> float:
    """The share of bootstrap values beyond each end of a 95 % interval.

    Where few things are drawn, the central 95 % would be too narrow; these tails are those that
    Student's t takes (Hesterberg, "What teachers should know about the bootstrap", The American
    Statistician 69, 2015: the expanded percentile interval).
    """
    if draws < 2:
        return 0.0
    reach = math.sqrt(draws / (draws - 1)) * student_t(draws - 1)
    return NormalDist().cdf(-reach)


def student_t(freedom: int) -> float:
    """Student's t that leaves 2.5 % above it; to 1 % from 4 degrees of freedom on.

    Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.5.
    """
    z = NormalDist().inv_cdf(1.0 - TAIL)
    terms = (
        z,
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


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


def drift(runs: Runs) -> float:
    """Relative change of the median from the first third of the rounds to the last."""
    third = len(runs) // 3
    if third < 3:
        return 0.0
    first, last = np.median(runs[:third]), np.median(runs[-third:])
    return float(last / first - 1.0) if first > 0 else 0.0
