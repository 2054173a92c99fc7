"""A small run on disk, as the pipeline would leave it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lilliput.artifact import Artifact, ArtifactMetadata, TensorSpec
from lilliput.candidate import Candidate
from lilliput.measurement import Measurement
from lilliput.preprocessing import Preprocessing
from lilliput.runs.folder import RunFolder
from lilliput.runs.record import candidate_to_json


class Text:
    def __init__(self, text: str) -> None:
        self.text = text

    def placed(self, home: Path) -> Text:
        return self

    def dump(self) -> str:
        return self.text


def made(folder: Path, name: str, ratio: float, drop: float, verdict: str) -> Candidate:
    path = folder / f"{name}.bin"
    path.write_bytes(name.encode() * 100)
    told = {"verdict": verdict, "other_load_cores": ratio / 10, "noise_floor": 0.012}
    metadata = ArtifactMetadata(
        preprocessing=Preprocessing(mean=(0.5,), std=(0.25,), channels=1),
        inputs=(TensorSpec(name="image", shape=(None, 1, 8, 8)),),
        precision="int8" if ratio < 1 else "fp32",
    )
    figures = [
        Measurement(quantity="bytes", value=path.stat().st_size, unit="B"),
        Measurement(quantity="macs", value=2e6, unit="MACs", estimated=True),
        Measurement(quantity="params", value=1e4, unit="", estimated=True),
        Measurement(quantity="latency_p90", value=3.3 * ratio, unit="ms", conditions=told),
        *(
            Measurement(
                quantity=quantity,
                value=value,
                unit=unit,
                interval=(value - 0.01, value + 0.01),
                conditions=told | {"metric": "top-1"},
            )
            for quantity, value, unit in (
                ("latency", 3 * ratio, "ms"),
                ("ratio", ratio, ""),
                ("metric", 91.7 - drop, "%"),
                ("drop", drop, "%"),
            )
        ),
    ]
    candidate = Candidate(
        id=name,
        artifact=Artifact.of(path, metadata=metadata),
        parent="original",
        stage="quantize",
        history=({"quantize": {"method": "a|b"}},),
    )
    return candidate.measured(*figures)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """A run of three files and one failure, under the given recipe; `more` events follow."""

    def build(recipe: str = "budget: {max_drop: 1.0}\n", **more: dict[str, Any]) -> RunFolder:
        with RunFolder.create(tmp_path / "run", Text(recipe)) as run:
            run.journal.note(
                "data", name="digits", examples={"train": 10}, synthetic=False, seed=7, sha256="abc"
            )
            files = [
                made(run.files, "original", 1.0, 0.0, "tie"),
                made(run.files, "fast", 0.5, 0.4, "faster"),
                made(run.files, "lossy", 0.6, 3.0, "faster").labelled("no gain over its parent"),
            ]
            stored = [candidate_to_json(c, c.the_artifact().path, run.path) for c in files]
            run.journal.note("measured", candidates=stored)
            run.journal.note(
                "failed", stage="shrink", number=1, candidate="original", error="too\nthin | x"
            )
            for event, facts in more.items():
                run.journal.note(event, **facts)
        return RunFolder.look(tmp_path / "run")

    return build
