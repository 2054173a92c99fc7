"""A run whose journal is scripted, session by session, as the pipeline would fill it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lilliput.artifact import Artifact, ArtifactMetadata
from lilliput.candidate import Candidate
from lilliput.context import SilentProgress
from lilliput.measurement import Measurement
from lilliput.runs.folder import RunFolder, is_run
from lilliput.runs.record import candidate_to_json
from lilliput.track import followed

RECIPE = "budget: {max_drop: 1.0}\nseed: 3\nstages:\n- quantize: {bits: 8, method: null}\n"


class Text:
    def placed(self, home: Path) -> Text:
        return self

    def dump(self) -> str:
        return RECIPE


class Said(SilentProgress):
    """Keeps what the user was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def record(run: RunFolder, name: str, **figures: float) -> dict[str, Any]:
    """A file with these figures; the latency has its interval."""
    path = run.files / f"{name}.bin"
    path.write_bytes(b"x")
    made = Candidate(
        id=name,
        artifact=Artifact.of(path, metadata=ArtifactMetadata(precision="int8")),
        parent="original",
        stage="quantize",
        history=({"quantize": {"bits": 8}},),
    )
    units = {"latency": "ms", "bytes": "B"}
    for quantity, value in figures.items():
        interval = (value - 0.5, value + 0.5) if quantity == "latency" else None
        figure = Measurement(
            quantity=quantity, value=value, unit=units.get(quantity, ""), interval=interval
        )
        made = made.measured(figure)
    return candidate_to_json(made, path, run.path)


def first_half(run: RunFolder) -> None:
    run.journal.note("epoch", training="a", epoch=1, loss=2.0)
    run.journal.note("epoch", training="a", epoch=2, loss=1.0)
    run.journal.once("made", lambda: {"candidate": record(run, "small", bytes=10)})
    run.journal.note("stage", number=1, name="quantize", seconds=7.5)


def second_half(run: RunFolder) -> None:
    """A resumed run passes its stages again, then measures and ends."""
    run.journal.note("stage", number=1, name="quantize", seconds=0.01)
    both = [record(run, "small", bytes=10, latency=2, metric=90), record(run, "large", bytes=20)]
    run.journal.once("measured", lambda: {"candidates": both})
    run.journal.note("finished", best="small", missed=[], seconds=9.0)
    run.write("report.md", "# How it went\n")
    run.write("report.html", "<p>How it went</p>")
    run.write("front.csv", "file\n")


PARTS = {"first": first_half, "second": second_half}


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., Said]:
    """Does "first" and "second" halves of `tmp_path/run` under trackers; what the user was told."""

    def work(*parts: str, track: Sequence[str]) -> Said:
        path, said = tmp_path / "run", Said()
        opened = RunFolder.open(path) if is_run(path) else RunFolder.create(path, Text())
        with opened as run, followed(run, track, said):
            for part in parts:
                PARTS[part](run)
        return said

    return work
