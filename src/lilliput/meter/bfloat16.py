"""Float files once more, to be computed in bfloat16 where the target's CPU multiplies in it.

Left to themselves some runtimes do that silently. Here the precision is always set, and a file that
is meant to run in bfloat16 says so, is measured so, and is a candidate of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lilliput.artifact import Artifact, ArtifactMetadata
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.meter.host import cpu_flags, multiplies_bfloat16
from lilliput.onnx_io import get_metadata, read_model, set_metadata, write_model
from lilliput.runtimes.base import RUNTIMES
from lilliput.target import Target

BF16 = "bf16"


def offered(target: Target) -> bool:
    """Whether bfloat16 is there to be had: by the runtime and the CPU, and not asked for anyway."""
    able = BF16 in RUNTIMES[target.runtime].precisions
    return able and target.precision == "f32" and multiplies_bfloat16(target.isa or cpu_flags())


def twins(files: Iterable[Candidate], context: Context) -> Iterator[Candidate]:
    """`<network>-bf16.onnx` of every plain float file: the same weights, another precision."""
    if not offered(context.target):
        return
    for file in files:
        artifact = file.the_artifact()
        if artifact.format == "onnx" and artifact.metadata.precision == "fp32":
            yield _twin(file, artifact, context)


def _twin(file: Candidate, artifact: Artifact, context: Context) -> Candidate:
    name = f"{file.id.removesuffix('-fp32')}-{BF16}"
    path = context.folder / f"{name}.onnx"
    if not path.is_file():
        model = read_model(artifact.path)
        set_metadata(model, get_metadata(model).model_copy(update={"precision": BF16}))
        write_model(model, path)
    made = Artifact.of(path).model_copy(update={"facts": artifact.facts})
    settings: dict[str, object] = {"bfloat16": {}}
    return Candidate(
        id=name,
        artifact=made,
        parent=file.id,
        stage="bfloat16",
        settings=settings,
        history=(*file.history, settings),
    )


def as_meant(metadata: ArtifactMetadata, target: Target) -> Target:
    """The target, in the precision that the file is meant to run in where the runtime has it."""
    meant = metadata.precision == BF16 and BF16 in RUNTIMES[target.runtime].precisions
    return target.model_copy(update={"precision": BF16}) if meant else target
