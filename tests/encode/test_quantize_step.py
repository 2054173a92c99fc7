"""The quantize stage: artifact in, smaller artifact out, everything journalled."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from lilliput.artifact import Artifact, ArtifactMetadata, TensorSpec, read_metadata
from lilliput.budget import Budget
from lilliput.candidate import Candidate
from lilliput.context import Context, SilentJournal
from lilliput.data.dataset import Dataset, Split
from lilliput.encode.calibration import calibration_of
from lilliput.errors import LilliputError, Refused
from lilliput.measurement import Measurement
from lilliput.onnx_io import set_metadata, write_model
from lilliput.preprocessing import Preprocessing
from lilliput.steps.base import STAGES
from lilliput.steps.quantize import Quantize, _Trials
from lilliput.target import Target
from lilliput.tasks.base import TASKS

COLOURS = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
QUICK = {"calibration_images": 48, "rounding": "nearest"}


class Notes(SilentJournal):
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def note(self, event: str, **facts: Any) -> None:
        json.dumps(facts)
        self.events.append((event, facts))


def split(count: int, seed: int, *, labelled: bool = True) -> Split:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    return Split(pictures, rng.integers(0, 4, count) if labelled else None)


def artifact_of(model: onnx.ModelProto, folder: Path) -> Artifact:
    metadata = ArtifactMetadata(
        preprocessing=COLOURS,
        inputs=(TensorSpec(name="x", shape=(None, 3, 8, 8)),),
        recipe=[{"export": {}}],
    )
    set_metadata(model, metadata)
    return Artifact.of(write_model(model, folder / "a.onnx"), metadata=metadata)


@pytest.fixture
def start(residual_net, tmp_path, monkeypatch):
    # A clock would decide about the first layer, and no test may hang on a clock.
    monkeypatch.setattr("lilliput.steps.quantize._Trials.faster", lambda *_: False)

    def make(**changes: Any) -> tuple[Candidate, Context]:
        candidate = Candidate(id="a", artifact=artifact_of(residual_net, tmp_path))
        data = Dataset("noise", calibration=split(64, 0), validation=split(64, 1))
        known = {
            "data": data,
            "task": TASKS["classification"](),
            "target": Target(),
            "original": candidate,
            "folder": tmp_path,
            "journal": Notes(),
        }
        return candidate, Context(**{**known, **changes})

    return make


def test_it_is_registered_and_says_its_sources() -> None:
    assert STAGES["quantize"] is Quantize
    assert "1806.08342" in Quantize.source
    assert Quantize(weight_bits=7).described() == {"quantize": {"weight_bits": 7}}


def test_a_file_comes_back_with_metadata_and_notes(start) -> None:
    candidate, context = start()
    before = candidate.the_artifact().path.read_bytes()
    made = Quantize(**QUICK).apply(candidate, context).the_artifact()
    assert candidate.the_artifact().path.read_bytes() == before
    assert made.path.name == "a.int8.onnx"
    inside = read_metadata(made.path)
    assert inside == made.metadata
    assert inside.precision == "int8"
    assert inside.preprocessing == COLOURS
    assert inside.parent == "a"
    assert inside.isa
    assert inside.recipe[0] == {"export": {}}
    assert inside.recipe[1]["quantize"]["calibration_images"] == 48
    rungs = [f for e, f in context.journal.events if e == "int8_rung"]
    assert [r["rung"].split()[0] for r in rungs][:2] == ["per", "pixel"]
    done = next(f for e, f in context.journal.events if e == "quantized")
    assert done["coverage"] == "quantized 4 of 4 weighted layers"
    assert done["runs_in_int8"] == 4
    assert done["floats_in_runtime"] == []
    assert done["bytes"] == made.bytes == made.path.stat().st_size


def test_the_targets_flags_decide_and_not_this_machines(start) -> None:
    # users-ask 12
    candidate, context = start(target=Target(isa=("avx2", "avx512_vnni")))
    made = Quantize(**QUICK).apply(candidate, context).the_artifact()
    largest = {
        int(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max())
        for t in onnx.load(made.path).graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
    }
    assert largest == {127}
    assert made.metadata.isa == ("avx2", "avx512_vnni")


def test_same_seed_same_bytes(start) -> None:
    # users-ask 27
    hashes = []
    for seed in (0, 0, 1):
        candidate, context = start(seed=seed)
        hashes.append(Quantize(**QUICK).apply(candidate, context).the_artifact().sha256)
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("own", "budget", "before", "allowed"),
    [
        (0.3, 1.0, 0.2, 0.3),
        (None, 1.0, None, 1.0),
        (None, 1.0, 0.25, 0.75),
        (None, None, 0.25, None),
    ],
)
def test_what_may_still_be_lost(start, own, budget, before, allowed) -> None:
    candidate, context = start(budget=Budget(max_drop=budget))
    if before is not None:
        candidate = candidate.measured(Measurement(quantity="drop", value=before, unit="%"))
    assert Quantize(max_drop=own)._allowed(candidate, context) == allowed


def test_the_budget_stops_the_ladder(start) -> None:
    candidate, context = start(budget=Budget(max_drop=100.0))
    Quantize(**QUICK).apply(candidate, context)
    rungs = [f for e, f in context.journal.events if e == "int8_rung"]
    assert len(rungs) == 1
    assert rungs[0]["drop"] <= 100.0


def test_unlabelled_data_judges_against_the_float_file(start) -> None:
    data = Dataset(
        "noise", train=split(64, 0, labelled=False), validation=split(32, 1, labelled=False)
    )
    candidate, context = start(data=data, budget=Budget(max_drop=100.0))
    Quantize(**QUICK).apply(candidate, context)
    assert next(f for e, f in context.journal.events if e == "quantized")["met"]


def test_without_validation_the_output_error_judges(start) -> None:
    candidate, context = start(data=Dataset("noise", calibration=split(64, 0)))
    made = Quantize(**QUICK).apply(candidate, context)
    done = next(f for e, f in context.journal.events if e == "quantized")
    assert done["drop"] is None
    # Whether this tiny file is larger depends on what the stopwatch left in float.
    assert set(made.labels) <= {"larger than its parent"}


def test_a_missed_drop_is_labelled_and_delivered(start, monkeypatch) -> None:
    monkeypatch.setattr("lilliput.steps.quantize._Trials.drop", lambda self, model: 9.0)
    candidate, context = start(budget=Budget(max_drop=0.5))
    made = Quantize(**QUICK).apply(candidate, context)
    assert made.the_artifact().path.is_file()
    assert "int8 loses more than allowed" in made.labels


def test_depthwise_layers_are_timed_on_the_target(
    depthwise_net, start, tmp_path, monkeypatch
) -> None:
    candidate, context = start(target=Target(runtime="null"))
    metadata = ArtifactMetadata(
        preprocessing=Preprocessing(channels=8),
        inputs=(TensorSpec(name="x", shape=(None, 8, 8, 8)),),
    )
    path = write_model(depthwise_net, tmp_path / "d.onnx")
    candidate = Candidate(id="d", artifact=Artifact.of(path, metadata=metadata))
    rng = np.random.default_rng(0)
    pictures = Split(rng.integers(0, 256, (64, 8, 8, 8)).astype(np.uint8))
    context = Context(**{**context.__dict__, "data": Dataset("noise", calibration=pictures)})
    said: list[str] = []

    def compared(files, reference, pace, **_):
        said.append(reference)
        return {name: SimpleNamespace(verdict="faster") for name in files}

    monkeypatch.undo()
    monkeypatch.setattr("lilliput.steps.quantize.compare_files", compared)
    Quantize(**QUICK).apply(candidate, context)
    assert said == ["second"]
    done = next(f for e, f in context.journal.events if e == "quantized")
    assert "depthwise, measured faster in float" in done["coverage"]


@pytest.mark.parametrize("verdict", ["faster", "slower", "tie"])
def test_float_has_to_be_faster_beyond_noise(
    residual_net, start, tmp_path, monkeypatch, verdict
) -> None:
    candidate, context = start()
    monkeypatch.undo()

    def compared(files, reference, pace, **_):
        assert (list(files), reference) == (["first", "second"], "second")
        return {"first": SimpleNamespace(verdict=verdict)}

    monkeypatch.setattr("lilliput.steps.quantize.compare_files", compared)
    trials = _Trials(candidate.the_artifact(), context, tmp_path)
    assert trials.faster(residual_net, residual_net) is (verdict == "faster")


def test_what_cannot_be_quantized_is_refused_before_anything_is_spent(
    start, builder, tmp_path
) -> None:
    candidate, context = start()
    step = Quantize(**QUICK)
    step.requires(candidate, context)
    made = step.apply(candidate, context)
    with pytest.raises(Refused, match=r"'a.int8.onnx' is quantized already"):
        step.requires(made, context)
    other = tmp_path / "a.pt2"
    other.write_bytes(b"x")
    with pytest.raises(Refused, match=r"quantize works on ONNX files, and 'a.pt2' is .pt2"):
        step.requires(Candidate(id="b", artifact=Artifact.of(other)), context)
    b = builder()
    relu = write_model(b.model(b.node("Relu", ["x"], "y"), 4), tmp_path / "relu.onnx")
    with pytest.raises(Refused, match="nothing to quantize: quantized 0 of 0"):
        step.requires(Candidate(id="c", artifact=Artifact.of(relu)), context)
    with pytest.raises(LilliputError, match="exclude pattern 'blok' matches no layer"):
        Quantize(exclude=("blok",)).requires(candidate, context)


def test_batches_are_disjoint_and_of_the_files_size(start) -> None:
    _, context = start()
    inputs = (TensorSpec(name="x", shape=(5, 3, 8, 8)),)
    found = calibration_of(
        context.data, context.task, COLOURS, inputs, images=63, rng=np.random.default_rng(0)
    )
    fit, judge = ([b[0] for b in feeds()] for feeds in (found.fit, found.judge))
    assert {len(b) for b in (*fit, *judge)} == {5}
    assert found.count == sum(map(len, (*fit, *judge))) == 45 + 15
    seen = {b.tobytes() for batch in fit for b in batch}
    assert not seen & {b.tobytes() for batch in judge for b in batch}
    again = [b[0] for b in found.fit()]
    np.testing.assert_array_equal(np.concatenate(fit), np.concatenate(again))


def test_large_pictures_need_fewer(start) -> None:
    _, context = start()
    pictures = [np.zeros((500, 500, 3), np.uint8)] * 30
    data = Dataset("large", calibration=Split(pictures))
    found = calibration_of(data, context.task, COLOURS, (), images=30, rng=np.random.default_rng(0))
    assert found.count == 8


def test_too_few_pictures_are_refused(start) -> None:
    _, context = start()
    inputs = (TensorSpec(name="x", shape=(32, 3, 8, 8)),)
    with pytest.raises(Refused, match="48 calibration examples are too few for batches of 32"):
        calibration_of(
            context.data, context.task, COLOURS, inputs, images=48, rng=np.random.default_rng(0)
        )
