"""A small run on disk, as the pipeline would leave it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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


HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>"
"""A text as an ill-meaning user would choose it; it must be shown, and never run."""

LAYERS = [
    {"name": "stem", "kind": "conv3x3", "inputs": 1, "outputs": 8, "macs": 4608, "params": 72},
    {"name": HOSTILE, "kind": "linear", "inputs": 8, "outputs": 10, "macs": 80, "params": 80},
]


def anatomy_json() -> dict[str, Any]:
    tensors = [("stem.weight", (8, 1, 3, 3), 100), (HOSTILE, (10, 8), 150)]
    return {
        "file": "fast.bin",
        "target": "onnxruntime, 1 thread",
        "bytes": 400,
        "graph_bytes": 150,
        "tensors": [
            {"name": name, "dtype": "int8", "shape": shape, "bytes": length}
            for name, shape, length in tensors
        ],
        "layers": [
            {**layer, "precision": "int8", "seconds": 2e-6 * n} for n, layer in enumerate(LAYERS, 1)
        ],
        "others": [{"op": "Add", "precision": "fp32", "count": 2, "seconds": 1e-6, "share": 1 / 7}],
        "seconds": 7e-6,
        "int8_share": 6 / 7,
        "advice": ["few multiply-adds to a byte"],
    }


def proxy(value: float) -> dict[str, Any]:
    figure = Measurement(quantity="proxy", value=value, unit="%", estimated=True)
    return {"proxy": figure.model_dump(mode="json")}


@pytest.fixture
def full_run(make_run: Callable[..., RunFolder]) -> RunFolder:
    """A finished run with everything that a report shows, and hostile texts wherever they fit."""
    made = [
        {"id": "original", "parent": None, "settings": {}, "figures": {}},
        {
            "id": "cut",
            "parent": "original",
            "settings": {"shrink": {"removed": HOSTILE}},
            "figures": proxy(91.5),
        },
    ]
    fast = [{"id": "fast", "parent": "cut", "settings": {"quantize": {}}, "figures": {}}]
    run = make_run(
        inputs={"warnings": [f"the normalisation looks wrong: {HOSTILE}"]},
        parts={"of": "fast", "anatomy": anatomy_json()},
        shown={
            "of": "fast",
            "samples": {
                "split": "test",
                "looked_through": 20,
                "differing": 1,
                "examples": [
                    {
                        "input": {"picture": "samples/0-input.png"},
                        "truth": {"text": HOSTILE},
                        "original": {"text": HOSTILE},
                        "recommended": {"text": "cat"},
                    },
                    {"input": {"picture": "../environment.json"}, "original": {"text": "no"}},
                ],
            },
        },
        quantized={"candidate": "fast", "sensitivity": {"stem": 0.0123}},
        failed={"stage": HOSTILE, "number": 2, "candidate": "cut", "error": f"broke: {HOSTILE}"},
    )
    with RunFolder.open(run.path) as again:
        for number, (name, those) in enumerate((("shrink", made), ("quantize", fast)), 1):
            again.journal.note("stage", number=number, name=name, seconds=61.0, made=those)
        again.journal.note("finished", best="fast", missed=[], seconds=75.2)
    samples = run.path / "samples"
    samples.mkdir()
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save(samples / "0-input.png")
    return RunFolder.look(run.path)


def member(genome: str, loss: float, size: float, **more: Any) -> dict[str, Any]:
    parts = {"kept": {"stem": 6}, "weight_bits": {"stem": 4, HOSTILE: 32}}
    figures = {"loss": loss, "coded_bytes": size, "macs": 10 * size}
    return {"id": genome, "generation": 2, "figures": figures, "parts": parts, **more}


@pytest.fixture
def searched_run(full_run: RunFolder) -> RunFolder:
    """The full run with a search: two members on its front, and a beaten one that is `lossy`."""
    facts = {
        "search": "search_any original",
        "stage": "search_any",
        "candidate": "original",
        "objectives": {"loss": "%", "coded_bytes": "B", "macs": "MACs"},
        "examples": 60,
        "original": {
            "kept": {"stem": 8},
            "weight_bits": {"stem": 32, HOSTILE: 32},
            "activation_bits": {"stem": 32},
        },
    }
    front = [member("0000aaaa", 2.5, 900.0), member(HOSTILE, 9.0, 300.0)]
    beaten = [member("1111bbbb", 12.0, 500.0, beaten=True)]
    figure = Measurement(quantity="proxy_drop", value=3.4, unit="%", estimated=True)
    made = {
        "id": "original-any1",
        "parent": "original",
        "settings": {"search_any": {"genome": "1111bbbb"}},
        "figures": {"proxy_drop": figure.model_dump(mode="json")},
    }
    with RunFolder.open(full_run.path) as again:
        again.journal.once("g 1", lambda: {"generation": {"search": facts["search"]}})
        again.journal.once("front", lambda: {"front": {**facts, "members": front}})
        again.journal.once("beaten", lambda: {"front": {**facts, "members": beaten}})
        again.journal.note("stage", number=3, name="search_any", made=[made])
        record = again.history().records["lossy"].model_copy(update={"parent": "original-any1"})
        again.journal.note("measured", candidates=[record.model_dump(mode="json")])
    return RunFolder.look(full_run.path)
