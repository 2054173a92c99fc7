"""Bfloat16 is a candidate of its own, where runtime and CPU have it, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.meter.bfloat16 import as_meant, offered, twins
from lilliput.meter.candidates import Yardstick, with_latency
from lilliput.onnx_io import read_model
from lilliput.reports.snippet import loading_line
from lilliput.runtimes.base import RUNTIMES
from lilliput.steps.export import Export
from lilliput.target import Target
from lilliput.testing import tiny_context
from lilliput.verbs.measure import measure

HAS = Target(runtime="openvino", isa=("avx2", "avx512_bf16"))


@pytest.mark.parametrize(
    ("target", "there"),
    [
        (HAS, True),
        (HAS.model_copy(update={"isa": ("avx2",)}), False),
        (HAS.model_copy(update={"precision": "bf16"}), False),
        (HAS.model_copy(update={"runtime": "onnxruntime"}), False),
    ],
)
def test_where_it_is_offered(target: Target, there: bool) -> None:
    assert offered(target) == there


def exported(context: Context) -> Candidate:
    made = Export().apply(replace(context.original, id="original-fp32"), context)
    return replace(made, id="original-fp32", parent="original", stage="export")


def test_float_files_have_a_twin_of_the_same_weights(tmp_path: Path) -> None:
    context = replace(tiny_context(tmp_path), target=HAS)
    plain = exported(context)
    metadata = plain.the_artifact().metadata.model_copy(update={"precision": "int8"})
    small = replace(plain, artifact=Artifact.of(plain.the_artifact().path, metadata=metadata))
    (twin,) = twins([plain, small], context)
    assert (twin.id, twin.parent) == ("original-bf16", "original-fp32")
    artifact = twin.the_artifact()
    assert artifact.metadata.precision == "bf16"
    models = [read_model(c.the_artifact().path) for c in (plain, twin)]
    assert models[0].graph == models[1].graph
    assert as_meant(artifact.metadata, HAS).precision == "bf16"
    assert as_meant(artifact.metadata, Target()).precision == "f32", "ONNX Runtime has no other"
    assert as_meant(plain.the_artifact().metadata, HAS).precision == "f32"
    assert "'bf16'" in loading_line(artifact.path, as_meant(artifact.metadata, HAS))
    assert list(twins([plain], replace(context, target=Target()))) == []


def test_it_is_scored_and_timed_in_bfloat16(tmp_path: Path) -> None:
    if RUNTIMES["openvino"].unavailable() is not None:
        pytest.skip("openvino is not installed")
    context = replace(tiny_context(tmp_path), target=HAS, timing_seconds=0.5)
    plain = exported(context)
    (twin,) = twins([plain], context)
    timed = with_latency([plain, twin], plain, context)[1]
    assert timed.measurements["latency"].conditions["precision_asked"] == "bf16"
    yardstick = Yardstick.of(plain.the_artifact(), context.data.split("validation"), context)
    assert np.isfinite(yardstick.judge(twin, context).value("metric"))
    told = measure(twin.the_artifact().path, target="openvino", max_seconds=0.5)
    assert told[twin.the_artifact().path].conditions["precision_asked"] == "bf16"
