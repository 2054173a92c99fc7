"""What trackers are told, when, and what happens when one of them fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lilliput.errors import LilliputError, Missing
from lilliput.runs.folder import RunFolder
from lilliput.track import TRACKERS, base, chosen

Session = Callable[..., Any]


class Diary:
    """A tracker that writes down what it is told; `place` stands for the server."""

    package: ClassVar[str] = "numpy"
    extra: ClassVar[str] = "none"
    place: ClassVar[str] = "here"
    told: ClassVar[list[tuple[Any, ...]]] = []
    fails_on: ClassVar[str] = ""

    def __init__(self, run: Path, settings: Any, stored: Any) -> None:
        self.stored = {"place": self.place}
        self._tell("begin", dict(settings), dict(stored))

    def _tell(self, *what: Any) -> None:
        if what[0] == self.fails_on:
            raise ConnectionError("the server has gone\nfor a walk")
        self.told.append(what)

    def curve(self, name: str, value: float, step: int, when: Any) -> None:
        self._tell("curve", name, value, step)

    def candidate(self, name: str, settings: Any, figures: Any, when: Any) -> None:
        self._tell("candidate", name, dict(settings), dict(figures))

    def remark(self, name: str, text: str) -> None:
        self._tell("remark", name, text)

    def document(self, path: Path) -> None:
        self._tell("document", path.name)

    def end(self, *, finished: bool) -> None:
        self._tell("end", finished)


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> type[Diary]:
    assert set(TRACKERS) == {"mlflow", "tensorboard"}
    monkeypatch.setitem(TRACKERS._things, "diary", Diary)
    for name, value in (("told", []), ("place", "here"), ("fails_on", "")):
        monkeypatch.setattr(Diary, name, value)
    return Diary


SETTINGS = {"budget.max_drop": 1.0, "seed": 3, "stages.1.quantize.bits": 8}
ABOUT = {
    "kind": "file",
    "stage": "quantize",
    "parent": "original",
    "precision": "int8",
    "quantize.bits": 8,
}
FIRST = [
    ("curve", "loss/a", 2.0, 1),
    ("curve", "loss/a", 1.0, 2),
    ("candidate", "small", ABOUT | {"file": "files/small.bin"}, {"bytes": 10}),
    ("curve", "stage seconds/1 quantize", 7.5, 1),
]
LATENCY = {"latency_ms": 2, "latency_ms_low": 1.5, "latency_ms_high": 2.5}
SECOND = [
    ("candidate", "small", ABOUT | {"file": "files/small.bin"}, LATENCY | {"metric": 90}),
    ("candidate", "large", ABOUT | {"file": "files/large.bin"}, {"bytes": 20}),
    ("remark", "recommended", "small"),
    *(("document", name) for name in ("report.md", "report.html", "front.csv")),
]


def test_each_event_is_told_once_in_its_order(session: Session, diary: type[Diary]):
    session("first", "second", track=["diary"])
    begin = [("begin", SETTINGS, {}), ("document", "recipe.yaml")]
    assert diary.told == [*begin, *FIRST, *SECOND, ("end", True)]


def test_a_resumed_run_goes_on_where_the_tracker_was_left(session: Session, diary: type[Diary]):
    session("first", track=["diary"])
    assert diary.told[-1] == ("end", False)
    diary.told.clear()
    session("second", track=["diary"])
    assert diary.told == [("begin", SETTINGS, {"place": "here"}), *SECOND, ("end", True)]


def test_a_run_can_be_shown_afterwards_and_anew(session: Session, diary: type[Diary]):
    session("first", "second", track=[])
    for place in ("here", "elsewhere"):
        diary.place = place
        diary.told.clear()
        session(track=["diary"])
        assert diary.told[1:] == [("document", "recipe.yaml"), *FIRST, *SECOND, ("end", True)]
    diary.told.clear()
    session(track=["diary"])
    documents = [("document", name) for name in ("report.md", "report.html", "front.csv")]
    assert diary.told[1:] == [*documents, ("end", True)], "and nothing twice"


@pytest.mark.parametrize("call", ["document", "curve", "candidate", "remark", "end"])
def test_a_tracker_that_fails_is_a_warning(
    session: Session, diary: type[Diary], tmp_path: Path, call: str
):
    diary.fails_on = call
    said = session("first", "second", track=["diary"])
    again = f"`lilliput resume {tmp_path}/run --track diary` sends the rest"
    stopped = "warning: tracking with diary stopped: the server has gone"
    assert said.lines == [f"{stopped}; the run goes on, and {again}"]
    assert RunFolder.look(tmp_path / "run").history().finished
    diary.fails_on = ""
    session(track=["diary"])
    told = [what for what in diary.told if what[0] in ("curve", "candidate", "remark")]
    assert [w for n, w in enumerate(told) if w not in told[:n]] == FIRST + SECOND[:3]


def test_an_event_of_another_version_is_a_warning_too(
    session: Session, diary: type[Diary], tmp_path: Path
):
    session("first", track=[])
    with RunFolder.open(tmp_path / "run") as run:
        run.journal.note("stage", name="without its number")
    said = session("second", track=["diary"])
    assert "tracking with diary stopped: 'number'; the run goes on" in said.lines[0]


def test_a_memory_that_cannot_be_read_begins_anew(
    session: Session, diary: type[Diary], tmp_path: Path
):
    session("first", track=["diary"])
    (tmp_path / "run" / "tracking-diary.json").write_text("{]")
    diary.told.clear()
    session(track=["diary"])
    assert diary.told[2:6] == FIRST


def test_a_place_that_takes_nothing_ends_the_run_before_its_work(
    session: Session, diary: type[Diary], tmp_path: Path
):
    diary.fails_on = "begin"
    with pytest.raises(ConnectionError):
        session("second", track=["diary"])
    assert not RunFolder.look(tmp_path / "run").history().finished


def test_what_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch):
    assert chosen(None) == ()
    assert chosen("mlflow") == ("mlflow",)
    assert chosen(["mlflow", "tensorboard", "mlflow"]) == ("mlflow", "tensorboard")
    with pytest.raises(LilliputError, match=r"no tracker 'mlflo'\n  → did you mean 'mlflow'\?"):
        chosen("mlflo")
    monkeypatch.setattr(base, "installed_version", lambda package: None)
    for name, package in (("mlflow", "mlflow-skinny"), ("tensorboard", "tensorboardX")):
        told = (
            f"tracking with {name} needs {package}, which is not installed\n"
            f'  → pip install "lilliput[{name}]"'
        )
        with pytest.raises(Missing, match=re.escape(told)):
            chosen(name)
