"""The fast claims: a file of ours is held against the best peer at no more loss."""

from typing import cast

import pytest
from benchmarks.fast import Judged, against, best_of

from lilliput.measurement import Measurement
from lilliput.meter.stopwatch import Timing


class Clock:
    """Of a stopwatch's figures only the ratio counts here."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio


def judged(lost: float, ratio: float, size: int) -> Judged:
    drop = Measurement(quantity="test_drop", value=lost, unit="points")
    return Judged(drop, cast("Timing", Clock(ratio)), size)


OURS = {"cut": judged(0.8, 0.4, 200), "int8": judged(-0.1, 0.6, 300)}


def test_the_fastest_file_that_loses_no_more_is_compared() -> None:
    faster, smaller = against(OURS, judged(0.9, 0.5, 250))
    assert faster.figure == pytest.approx(1.25)
    assert smaller.figure == pytest.approx(1.25)
    faster, smaller = against(OURS, judged(0.0, 0.63, 310))
    assert faster.figure == pytest.approx(1.05)
    assert faster.note.startswith("int8: -0.10 points lost")


def test_a_peer_that_loses_less_than_any_of_ours_is_a_miss() -> None:
    (row,) = against(OURS, judged(-0.5, 0.7, 300))
    assert row.holds is False


def test_the_best_peer_is_the_fastest_within_the_limit_or_the_one_that_loses_least() -> None:
    peers = {"slow": judged(0.1, 0.6, 1), "fast": judged(0.9, 0.5, 1), "bad": judged(3, 0.2, 1)}
    assert best_of([*peers], peers) == "fast"
    assert best_of(["bad"], peers) == "bad"
