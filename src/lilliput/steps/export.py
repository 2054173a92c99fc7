"""Write a network as the file that is measured and delivered."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lilliput.artifact import ArtifactMetadata
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.dataset import Array
from lilliput.effort import Effort
from lilliput.export.onnx_file import export_network
from lilliput.export.trace import lowest_opset
from lilliput.network import Network
from lilliput.steps.base import STAGES, Kind, Step

REAL_EXAMPLES = 32


@STAGES.register("export")
class Export(Step):
    """ONNX, checked, loaded and compared with torch on random and on real inputs."""

    name: ClassVar[str] = "export"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "artifact"
    source: ClassVar[str] = "a change of format; no paper"

    opset: int | None = Field(
        None, description="ONNX operator set; left out, the lowest that serves (13 or more)"
    )

    def child_id(self, parent: str) -> str:
        """`<parent>-fp32`: the float file of that network."""
        return f"{parent}-fp32"

    def requires(self, candidate: Candidate, context: Context) -> None:  # noqa: ARG002
        """Refuses a candidate that is a file already, and an opset that nobody writes."""
        self.check_kind(candidate)
        lowest_opset(self.opset)

    def effort(self, context: Context) -> Effort:  # noqa: ARG002
        return Effort(seconds=(1, 5))

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate as `<id>.onnx` in the run's folder; what was found out is journalled."""
        network = candidate.the_network()
        metadata = ArtifactMetadata(
            preprocessing=network.preprocessing if context.data.layout == "image" else None,
            task=context.task.settings(),
            recipe=[dict(settings) for settings in candidate.history],
            isa=context.target.isa,
            parent=candidate.parent,
            seed=context.seed,
        )
        artifact = export_network(
            network,
            context.folder / f"{candidate.id}.onnx",
            metadata=metadata,
            opset=self.opset,
            probe=real_inputs(network, context),
            task=context.task,
        )
        context.journal.note("exported", candidate=candidate.id, **artifact.facts)
        return Candidate(id=candidate.id, artifact=artifact)


def real_inputs(network: Network, context: Context) -> tuple[Array, ...]:
    """Network inputs made from validation examples, as many as the batch may hold; or none."""
    split = context.data.validation
    if not len(split):
        return ()
    fixed = [spec.batch for spec in network.inputs if spec.batch is not None]
    count = min([REAL_EXAMPLES, *fixed])
    batches = context.task.batches(
        split.head(count), network.preprocessing, count, layout=context.data.layout
    )
    return next(iter(batches)).inputs
