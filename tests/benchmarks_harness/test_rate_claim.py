"""The rate's claim: curves are compared where they lose the same."""

from benchmarks.claims.rate_int8 import Point, compared, smallest
from benchmarks.int8 import CASES

from lilliput.measurement import Measurement


def point(name: str, lost: float, size: int) -> Point:
    return Point(name, Measurement(quantity="test_drop", value=lost, unit="points"), size)


OURS = [point("8", -0.1, 200), point("4", 0.09, 120), point("3", 0.3, 100)]
THEIRS = [point("QP -34", 0.15, 180), point("QP -30", 0.4, 90)]


def test_the_smallest_file_that_loses_no_more() -> None:
    assert smallest(OURS, 0.2) == OURS[1]
    assert smallest(THEIRS, 0.1) is None


def test_files_are_compared_at_each_loss() -> None:
    rows = list(compared(CASES[1], OURS, THEIRS))
    assert [row.figure for row in rows] == [None, 0.6667, 0.5556, 1.1111]
    assert [row.holds for row in rows[1:]] == [True, True, False]
    assert rows[0].note == "no file of NNCodec's loses so little"
