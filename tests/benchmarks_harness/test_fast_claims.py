"""The fast claims: a file of ours is held against the best peer at no more loss."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from benchmarks.fast import Judged, against, best_of
from benchmarks.scoring import CHANCE

from lilliput.measurement import Measurement
from lilliput.meter.stopwatch import Timing


class Clock:
    """Of a stopwatch's figures only the ratio counts here."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio


def judged(lost: float, ratio: float, size: int) -> Judged:
    drop = Measurement(quantity="test_drop", value=lost, unit="points")
    return Judged(np.full(50, 90 - lost), drop, cast("Timing", Clock(ratio)), size)


OURS = {"cut": judged(0.8, 0.4, 200), "int8": judged(-0.1, 0.6, 300)}


@pytest.mark.parametrize(
    ("rival", "mine", "more", "faster", "smaller"),
    [
        (judged(0.9, 0.5, 250), "cut", -0.1, 1.25, 1.25),
        (judged(0.0, 0.63, 315), "int8", -0.1, 1.05, 1.05),
        (judged(-0.5, 0.72, 300), "int8", 0.4, 1.2, 1.0),
    ],
    ids=["all of ours lose less", "one loses less", "all lose more"],
)
def test_the_fastest_file_that_loses_no_more_or_the_one_that_loses_least_is_held_against_it(
    rival: Judged, mine: str, more: float, faster: float, smaller: float
) -> None:
    rows = against(OURS, rival)
    assert [row.figure for row in rows] == pytest.approx([more, faster, smaller])
    assert rows[0].note is not None
    assert rows[0].note.startswith(f"{mine}: ")
    assert rows[0].holds is (more <= 0)
    assert rows[0].limits is None  # every picture tells the same: chance orders nothing


def test_a_loss_that_may_be_chance_is_said_to_be() -> None:
    right = np.full((2, 500), 100.0)
    right[0, :12] = right[1, 20:30] = 0.0
    noisy = replace(OURS["int8"], scores=right[0])
    rival = replace(judged(-0.2, 0.7, 400), scores=right[1])
    row, *_ = against({"int8": noisy}, rival)
    assert row.figure == pytest.approx(0.4)
    assert row.limits == CHANCE


def test_the_best_peer_is_the_fastest_within_the_limit_or_the_one_that_loses_least() -> None:
    peers = {"slow": judged(0.1, 0.6, 1), "fast": judged(0.9, 0.5, 1), "bad": judged(3, 0.2, 1)}
    assert best_of([*peers], peers) == "fast"
    assert best_of(["bad"], peers) == "bad"
