"""Static int8: the file's integer form, found on a ladder that stops at the allowed drop."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from lilliput.artifact import Artifact, ArtifactMetadata
from lilliput.candidate import Candidate
from lilliput.codec.container import encode
from lilliput.context import Context
from lilliput.effort import Effort
from lilliput.encode.calibration import Calibration, calibration_of
from lilliput.encode.ladder import Ladder
from lilliput.encode.layers import layers_of, match_layers
from lilliput.encode.outcome import Outcome, Rung, Settings
from lilliput.encode.placement import Placement, place
from lilliput.encode.prepare import prepare
from lilliput.encode.saturation import saturates
from lilliput.encode.steadiness import UNSTEADY, unsteadiness
from lilliput.errors import LilliputError, Refused
from lilliput.graph import Graph
from lilliput.graph.constants import known_ahead
from lilliput.meter.coverage import coverage
from lilliput.meter.host import cpu_flags, isa_class
from lilliput.meter.stopwatch import Pace, compare_files
from lilliput.meter.trials import Trials
from lilliput.onnx_io import read_model, set_metadata, write_model
from lilliput.preprocessing import IDENTITY
from lilliput.steps.base import STAGES, Kind, Step

if TYPE_CHECKING:
    import onnx

_NONE = np.zeros(0)


@STAGES.register("quantize")
class Quantize(Step):
    """Weights and activations in 8 bits, written as QDQ that runtimes fuse into integer kernels.

    The ladder: batch norms folded, scales per channel, ranges by the best of four methods,
    cross-layer equalization, bias correction, optimized rounding, float for the worst layers. On
    a target whose CPU adds 8-bit products in 16 bits the weights are chosen so that no sum can
    overflow. No training and no labels are needed. With a `rate` they are chosen for their
    coded size too: the file runs as fast, and packs smaller.
    """

    name: ClassVar[str] = "quantize"
    takes: ClassVar[Kind] = "artifact"
    gives: ClassVar[Kind] = "artifact"
    source: ClassVar[str] = (
        "Krishnamoorthi, arXiv 1806.08342; Nagel et al., ICCV 2019 and ICML 2020; see "
        "lilliput.encode"
    )

    weight_bits: Literal[7, 8] = Field(8, description="bits of a weight; 8 is safe everywhere")
    ranges: Literal["auto", "minmax", "percentile", "entropy", "mse"] = Field(
        "auto", description="how the ranges of activations are chosen; auto measures all"
    )
    equalize: bool = Field(True, description="try cross-layer equalization")
    bias_correction: bool = Field(True, description="try empirical bias correction")
    rounding: Literal["nearest", "optimized", "auto"] = Field(
        "auto", description="optimized rounding of weights: never, or kept where it helps"
    )
    rate: Annotated[float, Field(ge=1, le=8)] | Literal["auto", "size"] | None = Field(
        None,
        description="bits a weight may take in a packed file; auto: as few as the drop allows; "
        "size: as many as the budget's size leaves, where the plain file is larger",
    )
    max_drop: float | None = Field(
        None, ge=0, description="stop at this loss of the metric; left out, the budget's"
    )
    exclude: tuple[str, ...] = Field((), description="globs of layers that stay float")
    calibration_images: int = Field(256, ge=2, description="examples to calibrate with")
    depthwise: Literal["auto", "int8", "float"] = Field(
        "auto", description="depthwise layers in int8 or float; auto measures which is faster"
    )
    when: Literal["always", "possible"] = Field(
        "always", description="possible: a file without a layer for int8 goes on as it is"
    )

    def has_work(self, candidate: Candidate, context: Context) -> bool:
        """With `when: possible`, not for a file of which nothing runs in int8: the report says why.

        What `requires` refuses for another reason is its to refuse.
        """
        artifact = candidate.artifact
        if self.when == "always" or artifact is None:
            return True

        def look() -> dict[str, Any]:
            with suppress(LilliputError):
                placement = self._placement(artifact)
                if not placement.layers:
                    return {"warnings": [f"int8: no gain for {candidate.id}: {placement.coverage}"]}
            return {"warnings": []}

        told = context.journal.once(f"what of {candidate.id} runs in int8", look)["warnings"]
        for sentence in told:
            context.progress.say(sentence)
        return not told

    def effort(self, context: Context) -> Effort:
        """From the plain rungs of the ladder to every one of them."""
        scored, fitted = len(context.data.validation), self.calibration_images
        return Effort(
            answers=(2 * scored + 10 * fitted, 20 * scored + 60 * fitted), seconds=(1, 10)
        )

    def child_id(self, parent: str) -> str:
        """`<network>-int8`, in place of the float file's `-fp32`."""
        return f"{parent.removesuffix('-fp32')}-int8"

    def requires(self, candidate: Candidate, context: Context) -> None:
        """Refuses what is not a float ONNX file, and patterns that match no layer."""
        self.check_kind(candidate)
        if self.rate == "auto" and self.max_drop is None and context.budget.max_drop is None:
            raise Refused(
                "quantize: `rate: auto` takes bits away until the allowed drop is reached, and "
                "none is set",
                hint="give `max_drop` (--max-drop), or a rate in bits a weight, as `rate: 4`",
            )
        if self.rate == "size" and context.budget.max_bytes is None:
            raise Refused(
                "quantize: `rate: size` takes bits away until the budget's size is kept, and none "
                "is set",
                hint="give `max_bytes` (--max-size), or a rate in bits a weight, as `rate: 4`",
            )
        placement = self._placement(candidate.the_artifact())
        if not placement.layers:
            raise Refused(
                f"nothing to quantize: {placement.coverage}",
                hint="int8 helps networks with Conv, Gemm or MatMul layers; leave this one float",
            )

    def _placement(self, artifact: Artifact) -> Placement:
        """Which layers of the float file would run in int8.

        Raises:
            Refused: It is no float ONNX file.
            LilliputError: A pattern of `exclude` matches no layer.
        """
        if artifact.format != "onnx":
            raise Refused(
                f"quantize works on ONNX files, and {artifact.path.name!r} is .{artifact.format}",
                hint="export to ONNX first",
            )
        model = read_model(artifact.path)
        if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
            raise Refused(
                f"{artifact.path.name!r} is quantized already", hint="give the float file"
            )
        if _unfolds(Graph.of(model)):
            raise Refused(
                f"the weights of {artifact.path.name!r} unfold from integers: it is quantized "
                "already, in the frequency domain",
                hint="leave out `quantize`, or `pack_dct` before it",
            )
        graph = Graph.of(prepare(model).model)
        excluded = match_layers(layers_of(graph), self.exclude)
        return place(graph, dict.fromkeys(excluded, "excluded"))

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate as `<id>.onnx` in the run's folder; rungs and coverage journalled."""
        artifact = candidate.the_artifact()
        preprocessing = artifact.metadata.preprocessing or IDENTITY
        calibration = calibration_of(
            context.data,
            context.task,
            preprocessing,
            artifact.metadata.inputs,
            images=self.calibration_images,
            rng=context.rng("quantize", "calibration"),
        )
        with tempfile.TemporaryDirectory(prefix="lilliput-int8-") as folder:
            trials = _Trials(artifact, context, Path(folder))
            allowed = self._allowed(candidate, context)
            judged = trials.possible and allowed is not None
            ladder = Ladder(
                self._settings(artifact, context),
                fit=calibration.fit,
                judge=calibration.judge,
                drop=trials.drop if judged else None,
                max_drop=allowed,
                faster=trials.faster,
                fits=partial(self._fits, artifact, context),
                say=_sayer(context),
            )
            outcome = ladder.climb(read_model(artifact.path))
        made = self._write(outcome, artifact, candidate, context)
        apart = unsteadiness(outcome.state, calibration.fit)
        result = _labelled(candidate, made, outcome, context)
        return result if apart <= UNSTEADY else _doubted(result, apart, calibration, context)

    def _settings(self, artifact: Artifact, context: Context) -> Settings:
        return Settings(
            weight_bits=self.weight_bits,
            saturating=saturates(context.target.isa or cpu_flags()),
            ranges=self.ranges,
            equalize=self.equalize,
            bias_correction=self.bias_correction,
            rounding=self.rounding,
            depthwise=self.depthwise,
            rate=self.rate,
            exclude=self.exclude,
            preprocessing=artifact.metadata.preprocessing
            if context.data.layout == "image"
            else None,
            threads=context.target.threads,
        )

    def _allowed(self, candidate: Candidate, context: Context) -> float | None:
        """What may still be lost: the step's own limit, or what the parent left of the budget."""
        if self.max_drop is not None:
            return self.max_drop
        limit = context.budget.max_drop
        if limit is None:
            return None
        before = candidate.measurements.get("drop")
        return limit if before is None else limit - max(before.value, 0.0)

    def _fits(self, artifact: Artifact, context: Context, model: onnx.ModelProto) -> bool:
        """Whether the finished file keeps the budget's size, packed if it does not as it is."""
        limit = context.budget.max_bytes
        finished = type(model)()
        finished.CopyFrom(model)
        set_metadata(finished, self._metadata(artifact, context))
        content = finished.SerializeToString()
        return limit is None or min(len(content), len(encode(content)[0])) <= limit

    def _metadata(self, artifact: Artifact, context: Context) -> ArtifactMetadata:
        return artifact.metadata.model_copy(
            update={
                "precision": "int8",
                "isa": context.target.isa or (isa_class(cpu_flags()),),
                "parent": artifact.path.stem,
                "recipe": [*artifact.metadata.recipe, self.described()],
            }
        )

    def _write(
        self, outcome: Outcome, artifact: Artifact, candidate: Candidate, context: Context
    ) -> Artifact:
        metadata = self._metadata(artifact, context)
        set_metadata(outcome.model, metadata)
        path = context.folder / f"{candidate.id}.onnx"
        if path.resolve() == artifact.path.resolve():
            path = path.with_suffix(".int8.onnx")
        write_model(outcome.model, path)
        return Artifact.of(path, metadata=metadata)


def _unfolds(graph: Graph) -> bool:
    """Whether weights of layers are computed from 8-bit integers when the file is loaded."""
    once = known_ahead(graph)
    wide = any(
        node.op_type == "Cast" and graph.constants.get(node.input[0], _NONE).dtype == np.int8
        for node in graph.nodes
    )
    weights = {node.input[1] for node in graph.nodes if node.op_type in ("Conv", "Gemm", "MatMul")}
    return wide and bool(weights & once)


class _Trials:
    """Scores and times models of the ladder."""

    def __init__(self, artifact: Artifact, context: Context, folder: Path) -> None:
        self.artifact, self.context, self.folder = artifact, context, folder
        self.possible = len(context.data.validation) > 0
        self._scores = Trials(artifact, context.data.validation, context, folder)

    def drop(self, model: onnx.ModelProto) -> float:
        """What the model loses against the float file, on validation."""
        return self._scores.drop(model)

    def faster(self, first: onnx.ModelProto, second: onnx.ModelProto) -> bool:
        """Whether the stopwatch calls the first model faster on the target."""
        target = self.context.target
        files = {
            name: (write_model(model, self.folder / f"{name}.onnx"), target)
            for name, model in (("first", first), ("second", second))
        }
        timing = compare_files(
            files,
            "second",
            Pace(max_seconds=self.context.timing_seconds),
            seed=self.context.derived_seed("quantize", "stopwatch") % 2**32,
        )
        return timing["first"].verdict == "faster"


def _sayer(context: Context) -> Callable[[Rung], None]:
    def say(rung: Rung) -> None:
        context.journal.note(
            "int8_rung",
            rung=rung.name,
            error=rung.error,
            drop=rung.drop,
            kept=rung.kept,
            seconds=rung.seconds,
            note=rung.note,
        )
        context.progress.say(f"int8, {rung}")

    return say


def _doubted(
    result: Candidate, apart: float, calibration: Calibration, context: Context
) -> Candidate:
    """Labelled as calibrated with too few examples, and the way out said."""
    context.progress.say(
        f"warning: {calibration.count} calibration examples are few: two halves of them give "
        f"ranges that differ by {apart:.0%}; give more, or raise `calibration_images`"
    )
    return result.labelled(f"ranges unsteady by {apart:.0%}: few calibration examples")


def _labelled(
    candidate: Candidate, made: Artifact, outcome: Outcome, context: Context
) -> Candidate:
    """The candidate with the file, its coverage checked in the runtime, and honest labels."""
    result = Candidate(id=candidate.id, artifact=made)
    wanted = len(outcome.state.placement.layers)
    try:
        found = coverage(made.path, context.target)
        runs, floats = len(found.quantized), list(found.floats)
    except LilliputError as error:
        runs, floats = wanted, [f"not checked: {error.thing}"]
    context.journal.note(
        "quantized",
        candidate=candidate.id,
        coverage=outcome.coverage,
        notes=list(outcome.notes),
        error=outcome.error,
        drop=outcome.drop,
        met=outcome.met,
        runs_in_int8=runs,
        floats_in_runtime=floats[:20],
        bytes=made.bytes,
        parent_bytes=candidate.the_artifact().bytes,
        sensitivity=dict(outcome.sensitivity),
        bits_a_weight=outcome.bits,
    )
    context.progress.say(f"int8, {outcome.coverage}")
    if runs < wanted:
        result = result.labelled(f"{wanted - runs} int8 layers run in float on the target")
    if made.bytes > candidate.the_artifact().bytes:
        result = result.labelled("larger than its parent")
    if not outcome.met:
        result = result.labelled("int8 loses more than allowed")
    return result
