"""The journal: what it acknowledged is there, whatever happens to the process or the last line."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lilliput.context import SilentJournal
from lilliput.errors import LilliputError
from lilliput.measurement import Measurement
from lilliput.runs.journal import Entry, JournalFile, read_entries

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
events = st.lists(
    st.tuples(st.text(min_size=1, max_size=8), st.dictionaries(st.text(), plain, max_size=3)),
    min_size=1,
    max_size=6,
)
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(path: Path, told: list[tuple[str, dict[str, Any]]]) -> bytes:
    path.unlink(missing_ok=True)
    with JournalFile(path) as journal:
        for event, facts in told:
            journal._append(event, facts)
    return path.read_bytes()


@quick
@given(told=events)
def test_what_was_noted_is_read_back(tmp_path: Path, told: list[tuple[str, dict[str, Any]]]):
    path = tmp_path / "journal.jsonl"
    content = written(path, told)
    assert [(e.event, e.facts) for e in read_entries(path)] == told
    assert [e.number for e in read_entries(path)] == list(range(1, len(told) + 1))
    assert content.count(b"\n") == len(told)


@quick
@given(told=events, data=st.data())
def test_torn_at_any_byte_the_lines_before_are_kept(
    tmp_path: Path, told: list[tuple[str, dict[str, Any]]], data: st.DataObject
):
    # users-ask 30
    path = tmp_path / "journal.jsonl"
    content = written(path, told)
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    # A line is whole when all of it but the newline is there.
    whole = (content[:cut] + b"\n").count(b'"}\n') if cut else 0
    whole = min(whole, content[: cut + 1].count(b"\n"))
    with JournalFile(path) as journal:
        assert [(e.event, e.facts) for e in journal] == told[:whole]
        journal.note("on", it="goes")
    assert [e.event for e in read_entries(path)] == [event for event, _ in told[:whole]] + ["on"]


@quick
@given(told=events, data=st.data())
def test_any_change_of_a_line_but_the_last_is_found(
    tmp_path: Path, told: list[tuple[str, dict[str, Any]]], data: st.DataObject
):
    path = tmp_path / "journal.jsonl"
    content = written(path, [*told, ("last", {})])
    place = data.draw(st.integers(0, content[:-1].rindex(b"\n") - 1))
    old = content[place : place + 1]
    new = data.draw(st.sampled_from(b'0a"{},: \\\n')).to_bytes(1, "big")
    if new == old:
        return
    path.write_bytes(content[:place] + new + content[place + 1 :])
    line = content[:place].count(b"\n") + 1
    with pytest.raises(LilliputError, match="not written by lilliput, or was changed") as caught:
        JournalFile(path)
    assert caught.value.at == f"{path}:{line}"


def test_lines_that_were_removed_or_swapped_are_found(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    lines = written(path, [("a", {}), ("b", {}), ("c", {})]).splitlines(keepends=True)
    for changed, line in (([0, 2], 2), ([1, 0, 2], 1), ([0, 0, 1, 2], 2), ([0, 2, 1], 2)):
        path.write_bytes(b"".join(lines[n] for n in changed))
        with pytest.raises(LilliputError) as caught:
            read_entries(path)
        assert caught.value.at == f"{path}:{line}"
        assert "keep the" in str(caught.value)


def test_a_last_line_that_was_edited_is_no_torn_one(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    content = written(path, [("a", {"x": 1}), ("b", {"x": 1})])
    path.write_bytes(b"2".join(content.rsplit(b'"x":1', 1)).replace(b"2}", b'"x":2}'))
    with pytest.raises(LilliputError, match=r"journal.jsonl:2"):
        JournalFile(path)


def test_a_missing_last_newline_is_mended(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    content = written(path, [("a", {}), ("b", {})])
    path.write_bytes(content[:-1])
    with JournalFile(path) as journal:
        journal.note("c")
    assert [e.event for e in read_entries(path)] == ["a", "b", "c"]


def test_zeros_that_a_power_cut_left_are_dropped(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(written(path, [("a", {})]) + b"\0" * 512)
    with JournalFile(path) as journal:
        journal.note("b")
    assert [e.event for e in read_entries(path)] == ["a", "b"]


def test_once_is_done_once_over_all_sessions(tmp_path: Path):
    path, calls = tmp_path / "journal.jsonl", []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"a": (1, 2), "b": np.float32(0.5), "c": float("inf"), "d": Path("x")}

    with JournalFile(path) as journal:
        first = journal.once("k", work)
        first["a"].append(9)
        assert "k" in journal
        assert "other" not in journal
    with JournalFile(path) as journal:
        again = journal.once("k", work)
    assert again == {"a": [1, 2], "b": 0.5, "c": float("inf"), "d": "x"}
    assert calls == [1]


def test_the_first_session_sees_what_a_resumed_one_sees(tmp_path: Path):
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        first = journal.once("k", lambda: {"tuple": (1,), 3: "key"})  # type: ignore[dict-item]
        assert first == journal.once("k", dict) == {"tuple": [1], "3": "key"}


def test_work_that_fails_is_not_remembered(tmp_path: Path):
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        with pytest.raises(ZeroDivisionError):
            journal.once("k", lambda: {"x": 1 // 0})
        assert journal.once("k", lambda: {"x": 1}) == {"x": 1}


def test_work_within_work(tmp_path: Path):
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        inner = journal.once("outer", lambda: {"got": journal.once("inner", lambda: {"x": 1})})
        assert inner == {"got": {"x": 1}}
        with pytest.raises(LilliputError, match="'k' is used inside its own work"):
            journal.once("k", lambda: journal.once("k", dict))
        assert journal.once("k", dict) == {}


def test_what_is_not_json_is_refused_and_leaves_no_trace(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with JournalFile(path) as journal:
        journal.note("good", figure=Measurement(quantity="x", value=1.0, unit="ms"))
        with pytest.raises(LilliputError, match="the facts of 'bad' do not go to JSON: object"):
            journal.note("bad", thing=object())
        journal.note("good")
    assert [e.event for e in read_entries(path)] == ["good", "good"]
    assert read_entries(path)[0].facts["figure"]["value"] == 1.0


def test_a_full_disk_is_an_error_and_the_journal_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, write = tmp_path / "journal.jsonl", os.write

    def full(handle: int, content: bytes) -> int:
        if len(content) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, content[: len(content) // 2])

    with JournalFile(path) as journal:
        journal.note("a")
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(LilliputError, match="cannot write: No space left on device"):
                journal.note("b")
        assert [e.event for e in read_entries(path)] == ["a"]
        journal.note("c")
    assert [(e.number, e.event) for e in read_entries(path)] == [(1, "a"), (2, "c")]


def test_times_come_from_the_given_clock(tmp_path: Path):
    moment = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    with JournalFile(tmp_path / "j", now=lambda: moment) as journal:
        journal.note("a")
        assert journal.entries[0].time == "2026-11-24T08:00:00.000+00:00"


def test_threads_take_turns(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with JournalFile(path) as journal:
        workers = [
            threading.Thread(target=lambda n=n: [journal.note("n", n=n, m=m) for m in range(20)])
            for n in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(read_entries(path)) == 80


def test_a_line_is_readable_json(tmp_path: Path):
    line = Entry(1, "t", "e", {"x": [1, "ü"]}).to_line()
    body = json.loads(line)
    assert body["facts"] == {"x": [1, "ü"]}
    assert Entry.from_line(line) == Entry(1, "t", "e", {"x": [1, "ü"]})
    assert Entry.from_line(b"\xff\xfe\n") is None


WRITER = """
import sys
from pathlib import Path
from lilliput.runs.journal import JournalFile
with JournalFile(Path(sys.argv[1])) as journal:
    n = len(journal.entries)
    while True:
        journal.once(f"key {n}", lambda: {"n": n, "filling": "x" * (n % 5000)})
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()
        n += 1
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path):
    # users-ask 30: killed at five moments, each time going on where it was
    path = tmp_path / "journal.jsonl"
    acknowledged = -1
    for wait in (0.0, 0.013, 0.03, 0.05, 0.08):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        assert int(first) >= acknowledged
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        rest = [
            line for line in process.stdout.read().splitlines(keepends=True) if line[-1:] == "\n"
        ]
        process.wait()
        acknowledged = int((rest or [first])[-1])
        with JournalFile(path) as journal:
            numbers = [e.facts["result"]["n"] for e in journal]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged


def test_a_fact_may_be_called_event(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with JournalFile(path) as journal:
        journal.note("said", event="a word")
    (entry,) = read_entries(path)
    assert (entry.event, entry.facts) == ("said", {"event": "a word"})
    SilentJournal().note("said", event="a word")
