"""Int8 files whose weights were chosen for their coded size, and NNCodec's own lossy coding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.harness import Claim, CommittedFile, Options, Peer, Row
from benchmarks.int8 import CASES, Case, prepared, quantized
from benchmarks.lil import nncodec_python
from benchmarks.peers.environment import output_of
from benchmarks.resnets import whole_test_drop, with_preprocessing
from lilliput.codec.container import encode
from lilliput.context import Context
from lilliput.measurement import Measurement
from lilliput.meter.stopwatch import Pace, compare_files
from lilliput.target import Target

NETWORKS = ("ResNet-20", "ResNet-56")
RATE = 4.0
"""Bits a weight of the file that the claim is about; the others make the curve."""
RATES = (RATE, 3.0, 2.5, 2.25, 2.0)
PARAMETERS = (-38, -36, -34, -32, -30, -28, -26)
"""NNCodec's; four of them double the step."""
LEVELS = (0.1, 0.2, 0.3, 0.5)
"""Points lost at which the curves are compared: the smallest file that loses no more."""
SECONDS = 40.0


@dataclass(frozen=True)
class Point:
    """A file of a curve: what it loses on the whole test split, and its coded bytes."""

    name: str
    lost: Measurement
    bytes: int

    def rows(self) -> tuple[Row, ...]:
        return (
            Row.of(f"{self.name}: points lost", self.lost),
            Row(name=f"{self.name}: bytes", figure=self.bytes, unit="B"),
        )


def run(options: Options) -> Claim:
    rows: list[Row] = []
    peers: list[Peer] = []
    files: dict[str, CommittedFile] = {}
    for case in (case for case in CASES if case.name in NETWORKS[: 1 if options.smoke else None]):
        options.log(case.name)
        context = prepared(case, options)
        made = {
            rate: quantized(context, rate)
            for rate in (None, *(RATES[:1] if options.smoke else RATES))
        }
        points = {rate: point_of(_name(rate), path, context) for rate, path in made.items()}
        theirs = [*nncodec_points(context, options)]
        rows += judged(case, points, made)
        rows += compared(case, [*points.values()], theirs)
        peers.append(
            Peer(
                name=f"{case.name}: NNCodec 2.1.3, dependent quantization",
                rows=tuple(row for point in theirs for row in point.rows()),
            )
        )
        files[case.name] = options.commit(made[RATE], f"rate-{context.folder.name}.onnx")
    return Claim(
        says=f"Weights chosen at {RATE:g} bits each: a plain int8 file, as fast, that packs at "
        "least 35 % smaller and loses at most 0.1 points; and smaller files than NNCodec's own "
        "lossy coding makes at any loss up to half a point",
        rows=tuple(rows),
        peers=tuple(peers),
        files=files,
    )


def verify(options: Options) -> Claim:
    """Score and pack the committed files again."""
    rows: list[Row] = []
    for case in (case for case in CASES if case.name in NETWORKS):
        context = prepared(case, options)
        point = point_of(_name(RATE), options.committed(case.name), context)
        rows += [
            row.model_copy(update={"name": f"{case.name}: {row.name}"}) for row in point.rows()
        ]
    return Claim(says="the committed files, scored and packed again", rows=tuple(rows))


def point_of(name: str, path: Path, context: Context) -> Point:
    original = context.original.the_artifact()
    lost = whole_test_drop(with_preprocessing(path, original), original, Target())
    return Point(name, lost, len(encode(path.read_bytes())[0]))


def nncodec_points(context: Context, options: Options) -> Iterator[Point]:
    """NNCodec's bitstreams of the float file's tensors, decoded into float files and scored.

    Its bytes are those of the tensors alone: the graph is not counted, in its favour.
    """
    python = nncodec_python(create=not options.smoke)
    if python is None:
        return
    original = context.original.the_artifact()
    model = onnx.load(str(original.path))
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    floats = {name: value for name, value in tensors.items() if value.dtype == np.float32}
    source = context.folder / "floats.npz"
    np.savez(source, **floats)
    for qp in PARAMETERS[:1] if options.smoke else PARAMETERS:
        decoded = context.folder / f"decoded{qp}.npz"
        script = "nncodec_lossy.py"
        told = json.loads(output_of(python, script, source, decoded, str(qp), peer="NNCodec"))
        path = _rebuilt(model, np.load(decoded), context.folder / f"nncodec{qp}.onnx")
        lost = whole_test_drop(with_preprocessing(path, original), original, Target())
        options.log(f"  NNCodec {qp}: {told['bytes']} bytes, {lost}")
        yield Point(f"QP {qp}", lost, told["bytes"])


def _rebuilt(model: onnx.ModelProto, tensors: Mapping[str, np.ndarray], path: Path) -> Path:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.name in tensors:
            value = tensors[tensor.name].astype(np.float32).reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    path.write_bytes(made.SerializeToString())
    return path


def _name(rate: float | None) -> str:
    return "ordinary int8" if rate is None else f"{rate:g} bits a weight"


def judged(
    case: Case,
    points: Mapping[float | None, Point],
    made: Mapping[float | None, Path],
) -> Iterator[Row]:
    """The file of the claim beside the ordinary one, and every point of the curve."""
    ordinary, ours = points[None], points[RATE]
    timing = compare_files(
        {"ordinary": (made[None], Target()), "rate": (made[RATE], Target())},
        "ordinary",
        Pace(max_seconds=SECONDS),
    )["rate"]
    low, high = timing.ratio_interval
    yield Row(
        name=f"{case.name}: packed, smaller than ordinary int8",
        figure=round(100 * (1 - ours.bytes / ordinary.bytes), 2),
        unit="%",
        goal=">= 35",
        note=f"{ours.bytes} of {ordinary.bytes} bytes",
    )
    yield Row.of(f"{case.name}: points lost, whole test split", ours.lost, goal="<= 0.1")
    yield Row(
        name=f"{case.name}: time over ordinary int8's",
        figure=round(timing.ratio, 4),
        interval=(low, high),
        goal="<= 1.01",
        note="1 % is the noise floor",
    )
    for point in points.values():
        for row in point.rows():
            yield row.model_copy(update={"name": f"{case.name}, {row.name}"})


def compared(case: Case, ours: list[Point], theirs: list[Point]) -> Iterator[Row]:
    """At each level of loss, our smallest file beside NNCodec's."""
    for level in LEVELS:
        mine, other = smallest(ours, level), smallest(theirs, level)
        if mine is None or other is None:
            who = "ours" if mine is None else "NNCodec's"
            yield Row(
                name=name_of(case, level), figure=None, note=f"no file of {who} loses so little"
            )
            continue
        yield Row(
            name=name_of(case, level),
            figure=round(mine.bytes / other.bytes, 4),
            goal="< 1",
            note=f"{mine.name}, {mine.bytes} bytes; {other.name}, {other.bytes} bytes",
        )


def name_of(case: Case, level: float) -> str:
    return f"{case.name}: bytes over NNCodec's at {level:g} points lost"


def smallest(points: list[Point], level: float) -> Point | None:
    """The smallest file that loses no more than `level`."""
    kept = [point for point in points if point.lost.value <= level]
    return min(kept, key=lambda point: point.bytes) if kept else None
