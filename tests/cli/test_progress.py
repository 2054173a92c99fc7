"""Progress: quiet when it should be, with a sound guess of the rest."""

from __future__ import annotations

import io

import pytest

from lilliput.console import progress_for
from lilliput.context import SilentProgress
from lilliput.progress import Job, LineProgress, length_of
from lilliput.progress_bars import BarProgress


class Clock:
    """Moves when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_line_every_ten_seconds_with_the_time_left():
    # users-ask 31
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress(stream, clock=clock)
    seen = []
    for item in progress.track(range(8), label="distill"):
        seen.append(item)
        clock.now += 4
    assert seen == list(range(8))
    assert lines(stream) == [
        "distill 3/8, 12 s, about 20 s left",
        "distill 6/8, 24 s, about 8 s left",
    ]


def test_short_jobs_are_not_mentioned():
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress(stream, clock=clock)
    clock.now = 100
    for _ in progress.track(range(5), label="quick"):
        clock.now += 0.3
    assert lines(stream) == []


def test_inner_jobs_name_the_outer_ones():
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress(stream, clock=clock)
    for _ in progress.track(range(2), label="outer"):
        for _ in progress.track(iter(range(3)), label="inner"):
            clock.now += 5
    assert lines(stream) == [
        "outer 0/2, 10 s › inner 2, 10 s",
        "outer 1/2, 20 s, about 20 s left › inner 1, 5 s",
        "outer 1/2, 30 s, about 30 s left › inner 3, 15 s",
    ]


def test_a_job_that_is_left_early_is_forgotten():
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress(stream, clock=clock)
    for _ in progress.track(range(9), label="left"):
        break
    with pytest.raises(ZeroDivisionError):
        list(progress.track(map(lambda n: 1 // n, range(9)), label="failed"))  # noqa: C417
    for _ in progress.track(range(2), label="next"):
        clock.now += 11
    assert lines(stream)[0] == "next 1/2, 11 s, about 11 s left"


def test_lines_are_said_at_once():
    stream = io.StringIO()
    LineProgress(stream).say("hello")
    assert stream.getvalue() == "hello\n"


def test_lengths():
    assert length_of([1, 2], None) == 2
    assert length_of(iter([1]), None) is None
    assert length_of(iter([1]), 7) == 7
    assert Job("x", None, 0.0, done=3).seconds_left(6.0) is None
    assert Job("x", 4, 0.0, done=2).seconds_left(6.0) == 6.0
    assert Job("x", 2, 0.0, done=4).seconds_left(6.0) == 0.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_suits_the_stream():
    assert isinstance(progress_for(quiet=True, stream=Terminal()), SilentProgress)
    assert isinstance(progress_for(stream=io.StringIO()), LineProgress)
    assert isinstance(progress_for(stream=Terminal()), BarProgress)


def bars(monkeypatch: pytest.MonkeyPatch) -> tuple[BarProgress, Clock, Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    clock, stream = Clock(), Terminal()
    return BarProgress(stream, clock=clock), clock, stream


def test_bars_come_when_a_job_takes_long_and_go_when_it_is_done(monkeypatch: pytest.MonkeyPatch):
    progress, clock, stream = bars(monkeypatch)
    for n in progress.track(range(4), label="outer"):
        for _ in progress.track(range(2), label="inner"):
            clock.now += 2
            assert progress._bars is not None
            progress._bars.refresh()
        if n == 0:
            assert "inner" in stream.getvalue()
    assert "outer" in stream.getvalue()
    assert "3/4, 12 s, about 4 s left" in stream.getvalue()
    assert progress._bars is None
    assert stream.getvalue().endswith("\x1b[?25h") or "\x1b[2K" in stream.getvalue()


def test_no_bars_for_short_jobs(monkeypatch: pytest.MonkeyPatch):
    progress, clock, stream = bars(monkeypatch)
    for _ in progress.track(range(3), label="quick"):
        clock.now += 0.1
        assert progress._bars is not None
        progress._bars.refresh()
    assert "quick" not in stream.getvalue()


def test_lines_go_above_the_bars_as_they_are(monkeypatch: pytest.MonkeyPatch):
    progress, _, stream = bars(monkeypatch)
    progress.say("a [b] line")
    for _ in progress.track(range(1), label="x"):
        progress.say("inside [c]")
    assert "a [b] line" in stream.getvalue()
    assert "inside [c]" in stream.getvalue()


def test_bars_end_when_a_job_fails(monkeypatch: pytest.MonkeyPatch):
    progress, _, _ = bars(monkeypatch)
    failing = map(lambda n: 1 // n, range(3))  # noqa: C417
    with pytest.raises(ZeroDivisionError):
        list(progress.track(failing, label="x"))
    assert progress._bars is None
