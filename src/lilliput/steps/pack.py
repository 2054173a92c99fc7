"""Write an ONNX file as a `.lil` file: the same network bit for bit, in the fewest bytes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lilliput.artifact import Artifact
from lilliput.atomic import write_atomically
from lilliput.candidate import Candidate
from lilliput.codec.verified import encode_verified
from lilliput.context import Context
from lilliput.errors import Refused
from lilliput.onnx_io import read_bytes, read_model
from lilliput.steps.base import STAGES, Kind, Step


@STAGES.register("pack")
class Pack(Step):
    """Weights under adaptive context models and a range coder; unpacking is bit for bit.

    Once loaded the network is the same, and just as fast: what becomes smaller is the file.
    Weights that are zero, shared or of few bits gain most.
    """

    name: ClassVar[str] = "pack"
    takes: ClassVar[Kind] = "artifact"
    gives: ClassVar[Kind] = "artifact"
    source: ClassVar[str] = (
        "coding in place of Han et al., ICLR 2016 (arXiv 1510.00149), section 4; see lilliput.codec"
    )

    when: Literal["always", "needed"] = Field(
        "always", description="needed: only a file that is larger than the budget's size"
    )

    def has_work(self, candidate: Candidate, context: Context) -> bool:
        """A plain file opens anywhere: where that counts more, only one that is too large."""
        artifact, limit = candidate.artifact, context.budget.max_bytes
        if self.when == "always" or artifact is None:
            return True
        return limit is not None and artifact.bytes > limit

    def child_id(self, parent: str) -> str:
        """`<parent>-lil`."""
        return f"{parent}-lil"

    def requires(self, candidate: Candidate, context: Context) -> None:  # noqa: ARG002
        """Refuses what is not a plain ONNX file."""
        self.check_kind(candidate)
        artifact = candidate.the_artifact()
        if artifact.format != "onnx":
            raise Refused(
                f"pack works on ONNX files, and {artifact.path.name!r} is .{artifact.format}",
                hint="one `pack` is enough"
                if artifact.format == "lil"
                else "put an `export` stage before it",
            )

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate as `<id>.lil` in the run's folder; its bill of bytes is journalled."""
        source = candidate.the_artifact()
        read_model(source.path)
        made = encode_verified(bytes(read_bytes(source.path)), source.path.name)
        path = context.folder / f"{candidate.id}.lil"
        write_atomically(path, made.packed)
        ratio = made.bill.raw_bytes / made.bill.bytes
        facts = {
            "bytes": made.bill.bytes,
            "ratio": round(ratio, 3),
            "parts": made.bill.parts,
            "pack_seconds": round(made.pack_seconds, 4),
            "unpack_seconds": round(made.unpack_seconds, 4),
        }
        context.journal.note("packed", candidate=candidate.id, **facts)
        # What is known of the ONNX file (opset, coverage, deviation from torch) holds of this too.
        artifact = Artifact.of(path, metadata=source.metadata)
        artifact = artifact.model_copy(update={"facts": {**source.facts, "packed": facts}})
        return Candidate(id=candidate.id, artifact=artifact)
