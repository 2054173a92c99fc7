"""Foreign runtimes in a child process: their crashes are errors that name the file."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from lilliput.errors import LilliputError
from lilliput.meter.loads import Loads
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.hosted import Hosted
from lilliput.target import Target

FEED = [np.zeros((1, 1), np.float32)]
TARGET = Target(runtime="foreign")


@pytest.fixture
def foreign() -> Iterator[Hosted]:
    runtime = Hosted(
        "foreign",
        "misbehaving_runtime",
        formats=(".bin",),
        package="no-such-package",
        install="pip install no-such-package",
        timeout_seconds=2.0,
    )
    yield runtime
    assert runtime._hosts == {}, "a child process was left behind"


def test_a_well_behaved_file_runs(foreign: Hosted, tmp_path: Path) -> None:
    session = foreign.load(tmp_path / "good.bin", TARGET)
    assert session.outputs == ("good",)
    assert session.inputs[0].shape == (None, 1)
    assert session.conditions["pid"] != os.getpid()
    assert session.conditions["process"] == f"child {session.conditions['pid']}"
    np.testing.assert_array_equal(session.run(FEED)[0], np.zeros((1, 1)))
    session.bind(FEED)
    np.testing.assert_array_equal(session.burst(3), [1_000_000] * 3)
    session.close()
    session.close()


def test_sessions_of_one_runtime_share_a_child(foreign: Hosted, tmp_path: Path) -> None:
    one, two = (foreign.load(tmp_path / f"{n}.bin", TARGET) for n in ("a", "b"))
    other = foreign.load(tmp_path / "c.bin", Target(runtime="foreign", threads=2))
    assert one.conditions["pid"] == two.conditions["pid"] != other.conditions["pid"]
    one.close()
    assert two.run(FEED)[0].shape == (1, 1)
    two.close()
    other.close()


def test_loading_anew_keeps_the_child(
    foreign: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lilliput.meter.loads.open_session", foreign.load)
    monkeypatch.setitem(RUNTIMES._things, "foreign", foreign)
    files = {name: (tmp_path / f"{name}.bin", TARGET) for name in ("a", "b")}
    with closing(Loads(files, rng=np.random.default_rng(0))) as loads:
        loads.open()
        first = dict(loads.sessions)
        loads.open()
        assert {s.conditions["pid"] for s in (*first.values(), *loads.sessions.values())} == {
            first["a"].conditions["pid"]
        }
        np.testing.assert_array_equal(loads.sessions["a"].burst(1), [1_000_000])
        with pytest.raises(LilliputError, match=r"a\.bin"):
            first["a"].burst(1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        # users-ask 38: a crash names file, runtime and signal
        ("crash", r"foreign crashed \(by SIGSEGV\) when asked to run 'crash.bin'"),
        ("crash", "its last words: about to die of std::length_error"),
        ("leave", r"foreign crashed \(with exit code 3\)"),
        ("sleep", r"foreign did not answer within 2 s \(asked to run 'sleep.bin'\)"),
        ("fail", "foreign cannot run 'fail.bin': RuntimeError: no kernel for Frobnicate$"),
        ("explain", "the input is upside down\n  → turn it"),
    ],
)
def test_misbehaviour_is_an_error(foreign: Hosted, tmp_path: Path, name: str, message: str) -> None:
    session = foreign.load(tmp_path / f"{name}.bin", TARGET)
    with pytest.raises(LilliputError, match=message):
        session.run(FEED)
    session.close()


def test_after_a_crash_the_next_file_gets_a_new_child(foreign: Hosted, tmp_path: Path) -> None:
    crashing = foreign.load(tmp_path / "crash.bin", TARGET)
    with pytest.raises(LilliputError, match="SIGSEGV"):
        crashing.run(FEED)
    good = foreign.load(tmp_path / "good.bin", TARGET)
    assert good.run(FEED)[0].shape == (1, 1)
    good.close()
    crashing.close()


@contextmanager
def interrupted() -> Iterator[None]:
    """What happens inside is interrupted after a moment, as by Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("doing", ["load", "run"])
def test_an_answer_that_nobody_waited_for_is_not_taken_for_another(
    foreign: Hosted, tmp_path: Path, doing: str
) -> None:
    # users-ask 30: what an interrupted run leaves is measured still
    if doing == "load":
        with interrupted():
            foreign.load(tmp_path / "slow.bin", TARGET)
    else:
        sleeping = foreign.load(tmp_path / "sleep.bin", TARGET)
        with interrupted():
            sleeping.run(FEED)
        sleeping.close()
    session = foreign.load(tmp_path / "good.bin", TARGET)
    assert session.outputs == ("good",)
    assert session.run(FEED)[0].shape == (1, 1)
    session.close()


def test_a_session_beside_one_that_crashed_says_so(foreign: Hosted, tmp_path: Path) -> None:
    crashing, beside = (foreign.load(tmp_path / f"{n}.bin", TARGET) for n in ("crash", "good"))
    with pytest.raises(LilliputError, match="SIGSEGV"):
        crashing.run(FEED)
    crashing.close()
    with pytest.raises(LilliputError, match=r"crashed \(by SIGSEGV\) when asked to run 'good.bin'"):
        beside.run(FEED)
    beside.close()


def test_an_unloadable_file_leaves_no_child(foreign: Hosted, tmp_path: Path) -> None:
    with pytest.raises(LilliputError, match=r"foreign cannot load 'unloadable.bin': ValueError"):
        foreign.load(tmp_path / "unloadable.bin", TARGET)


def test_wrong_inputs_are_caught_before_the_child(foreign: Hosted, tmp_path: Path) -> None:
    session = foreign.load(tmp_path / "crash.bin", TARGET)
    with pytest.raises(LilliputError, match="input 'x' takes any×1, got 1×2"):
        session.run([np.zeros((1, 2), np.float32)])
    session.close()


def test_a_runtime_without_a_profiler_reports_nothing(foreign: Hosted, tmp_path: Path) -> None:
    assert foreign.profile(tmp_path / "good.bin", TARGET, FEED) == []


def test_a_missing_package_is_said_with_its_command(foreign: Hosted) -> None:
    assert foreign.unavailable() == "pip install no-such-package"
