"""What can be cut from a network, what is frozen, and why; or what is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lilliput.artifact import Artifact, TensorSpec
from lilliput.codec.bill import Bill
from lilliput.data.sources import load_data
from lilliput.meter.cost import Cost, model_cost
from lilliput.noun import Noun
from lilliput.onnx_io import SUFFIXES, get_metadata, read_model, read_packed
from lilliput.preprocessing import Preprocessing
from lilliput.tasks import task_of
from lilliput.units import format_bytes, format_count

if TYPE_CHECKING:
    from lilliput.models.inspect import Inspection


class FileInspection(Noun):
    """What an ONNX file holds: its cost by layer, and what it says of itself.

    `bill` says where the bytes of a packed one went.
    """

    artifact: Artifact
    cost: Cost
    bill: Bill | None = None

    def __str__(self) -> str:
        made, cost = self.artifact.metadata, self.cost
        facts = {
            "size": format_bytes(self.artifact.bytes),
            "sha256": self.artifact.sha256,
            "precision": made.precision,
            "task": made.task,
            "preprocessing": made.preprocessing,
            "inputs": ", ".join(f"{s.name} {_shape(s)}" for s in made.inputs),
            "made by": made.recipe,
        }
        return "\n".join(
            [
                (
                    f"{self.artifact.path}: {format_count(cost.macs)} multiply-adds, "
                    f"{format_count(cost.params)} parameters"
                ),
                *(f"  {name}: {fact}" for name, fact in facts.items() if fact),
                f"{len(cost.layers)} layers with weights",
                *(
                    f"  {x.name}: {x.kind} {x.inputs} → {x.outputs}, {x.precision}, "
                    f"{format_count(x.macs)} multiply-adds"
                    for x in cost.layers
                ),
                *(() if self.bill is None else ("where the bytes went", str(self.bill))),
            ]
        )


def inspect(
    model: str | Path,
    *,
    weights: Path | str | None = None,
    data: str | None = None,
    task: str | dict[str, Any] = "classification",
    input_shape: tuple[int, ...] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Inspection | FileInspection:
    """List what can be cut and what is frozen and why, or the layers of a file.

    Args:
        model: `file.py:function`, `package.module:function`, a `.pt2`, an `.onnx` or a `.lil` file.
        weights: `.safetensors`, or a state dict in `.pt`; without it, the network as it is built.
        data: Its first example tells the input's shape, where `input_shape` does not.
        task: What the network is for; needed to make inputs of `data`.
        input_shape: Batch first.
        preprocessing: How a picture becomes the network's input.

    Raises:
        LilliputError: The model cannot be built or loaded, or its input is not known.
    """
    if Path(model).suffix in SUFFIXES:
        return _inspected_file(Path(model))
    from lilliput.models.inspect import inspect_network
    from lilliput.models.source import load_network

    named = task_of(task)
    examples = None
    if data is not None:
        examples = named.prepare(load_data(data, task=named, preprocessing=preprocessing))
    inputs = None
    if input_shape is not None:
        shape = (None, *input_shape[1:])
        inputs = (TensorSpec(name="input", shape=shape, sample=tuple(input_shape)),)
    network = load_network(
        str(model),
        weights=None if weights is None else Path(weights),
        inputs=inputs,
        preprocessing=preprocessing,
        task=named,
        data=examples,
    )
    return inspect_network(network)


def _inspected_file(path: Path) -> FileInspection:
    model, bill = read_packed(path) if path.suffix == ".lil" else (read_model(path), None)
    artifact = Artifact.of(path, metadata=get_metadata(model))
    return FileInspection(artifact=artifact, cost=model_cost(model, artifact.bytes), bill=bill)


def _shape(spec: TensorSpec) -> str:
    return "×".join("any" if size is None else str(size) for size in spec.shape)
