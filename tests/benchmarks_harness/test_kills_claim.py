"""The claim about kills: what it compares, how it counts, and that an interrupted one goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.claims import kills
from benchmarks.harness import Options, Row

from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.measurement import Measurement
from lilliput.runs.folder import RunFolder
from lilliput.runs.record import candidate_to_json


class Text:
    """Stands for a recipe."""

    def placed(self, home: Path) -> Text:
        return self

    def dump(self) -> str:
        return "model: x\n"


def finished(path: Path, *, content: bytes = b"net", drop: float = 0.5, ms: float = 1.0):  # type: ignore[no-untyped-def]
    """A run of one file."""
    with RunFolder.create(path, Text()) as run:
        file = run.files / "a.bin"
        file.write_bytes(content)
        made = Candidate(id="a", artifact=Artifact.of(file), stage="quantize").measured(
            Measurement(quantity="bytes", value=len(content), unit="B"),
            Measurement(quantity="drop", value=drop, unit="points", interval=(drop - 1, drop + 1)),
            Measurement(quantity="latency", value=ms, unit="ms"),
            Measurement(quantity="ratio", value=ms, unit="×"),
        )
        run.journal.note("measured", candidates=[candidate_to_json(made, file, run.path)])
    return RunFolder.look(path)


def test_all_but_clocks_is_compared(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole")
    assert list(kills.compared(whole, finished(tmp_path / "slower", ms=2.0))) == []
    other = finished(tmp_path / "other", content=b"not", drop=0.6)
    assert list(kills.compared(whole, other)) == ["a: drop", "a: sha256"]
    with RunFolder.create(tmp_path / "empty", Text()):
        pass
    empty = RunFolder.look(tmp_path / "empty")
    assert list(kills.compared(whole, empty)) == ["a is only in the undisturbed run"]
    assert list(kills.compared(empty, whole)) == ["a is only in the killed run"]


def result(number: int, **told: object) -> kills.Killed:
    given = {
        "number": number,
        "kills": 2,
        "at": ("screen w50", ""),
        "seconds": 50.0,
        "lost_seconds": 10.0,
        "differences": (),
        "same_ranks": True,
    }
    return kills.Killed(**(given | told))  # type: ignore[arg-type]


def test_kills_and_other_fronts_are_counted() -> None:
    rows = {
        row.name: row for row in kills.rows_of([result(n) for n in range(kills.RUNS)], seconds=40.0)
    }
    count, other, same, lost = rows.values()
    assert (count.figure, count.holds) == (2 * kills.RUNS, True)
    assert "before the run began, screen w50" in (count.note or "")
    assert (other.figure, other.holds) == (0.0, True)
    assert same.figure == kills.RUNS
    assert lost.figure == 5.0
    few = [result(0), result(1, differences=("a: sha256",), same_ranks=False)]
    count, other, same, _ = kills.rows_of(few, seconds=40.0)
    assert (count.holds, other.figure, other.holds, same.figure) == (False, 1.0, False, 1.0)
    assert other.limits == "a: sha256"


SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_the_whole_group_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(60)"
    started: list[subprocess.Popen[bytes]] = []

    def start(recipe: Path, folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", parent, *SLEEPER]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        return process

    monkeypatch.setattr(kills, "start", start)
    began = time.monotonic()
    assert kills.run_until_killed(tmp_path / "recipe.yaml", tmp_path / "run", 0.5) is False
    # The pipe ends when the last process that holds it has gone, the grandchild too.
    assert started[0].stdout is not None
    assert started[0].stdout.read() == b""
    assert time.monotonic() - began < 30
    assert started[0].returncode == -9


def test_an_interrupted_claim_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(name="kills", smoke=True, home=tmp_path, log=lambda _: None)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: x\n")
    asked: list[int] = []

    def killed_run(number: int, *_: object) -> kills.Killed:
        asked.append(number)
        return result(number)

    whole = finished(tmp_path / "whole")
    monkeypatch.setattr(kills, "write_recipe", lambda _: recipe)
    monkeypatch.setattr(kills, "undisturbed", lambda *_: (whole, 40.0))
    monkeypatch.setattr(kills, "killed_run", killed_run)
    monkeypatch.setattr(kills, "memory_row", lambda _: Row(name="memory", figure=0.0))
    monkeypatch.setattr(kills, "SMOKE_RUNS", 3)
    assert len(kills.run(options).rows) == 5
    (kept,) = options.work.glob("kills-*.jsonl")
    kept.write_text(kept.read_text()[:-20])
    asked.clear()
    kills.run(options)
    assert asked == [2], "the torn line is done again, and no other"
    asked.clear()
    kills.run(options)
    assert asked == []


def test_a_kill_that_comes_too_late_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(name="kills", smoke=True, home=tmp_path, log=lambda _: None)
    whole = finished(tmp_path / "whole")
    ends = iter([True, False, False])

    def until_killed(recipe: Path, folder: Path, moment: float) -> bool:
        assert 0 <= moment <= 40
        folder.mkdir(exist_ok=True)
        return next(ends)

    def to_the_end(recipe: Path, folder: Path) -> None:
        folder.rmdir()
        finished(folder)

    monkeypatch.setattr(kills, "run_until_killed", until_killed)
    monkeypatch.setattr(kills, "to_the_end", to_the_end)
    number = kills.TWICE_EVERY - 1
    found = kills.killed_run(number, tmp_path / "recipe.yaml", whole, 40.0, options)
    assert (found.kills, found.at, found.differences) == (2, ("", ""), ())
    assert found.same_ranks
    assert not (options.work / f"run-{number}").exists()
