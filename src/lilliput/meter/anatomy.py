"""What a file is made of, layer by layer and byte by byte, and where its time goes.

The bill sums to the file's length: what is no stored tensor is the graph (operators, names,
metadata), and is told as such.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from lilliput.errors import Refused
from lilliput.meter.cost import LayerCost, file_cost
from lilliput.meter.explain import by_operator, explained, profiled
from lilliput.meter.explanation import OperatorShare
from lilliput.noun import Noun
from lilliput.onnx_io import read_model, read_packed
from lilliput.runtimes.base import NodeTime
from lilliput.target import Target


class LayerShare(Noun):
    """A layer with weights. `seconds` is its profiled time; None where it was not seen to run."""

    name: str
    kind: str
    inputs: int
    outputs: int
    macs: float
    params: int
    precision: str
    seconds: float | None = None


class StoredTensor(Noun):
    """A tensor of the file. `bytes` is all that it takes there: in an ONNX file its name and shape
    included, in a packed one its numbers alone, and `parts` says for what.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    parts: dict[str, int] = Field(default_factory=dict)

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class Anatomy(Noun):
    """A file in its parts. `seconds` is the profiled time of all operators, 0 if none was.

    `others` are the operators without weights; `graph_bytes` and the tensors sum to `bytes`.
    """

    file: str
    target: str
    bytes: int
    graph_bytes: int
    tensors: tuple[StoredTensor, ...]
    layers: tuple[LayerShare, ...]
    others: tuple[OperatorShare, ...] = ()
    seconds: float = 0.0
    int8_share: float = 0.0
    advice: tuple[str, ...] = ()


def anatomy(path: Path | str, target: Target) -> Anatomy:
    """Take an ONNX file apart; where the runtime can profile, with the time of every layer.

    Raises:
        LilliputError: The file is not ONNX, or a layer's shape cannot be inferred.
    """
    path = Path(path)
    cost = file_cost(path)
    tensors = stored_tensors(path)
    length = path.stat().st_size
    parts = Anatomy(
        file=path.name,
        target=target.label,
        bytes=length,
        graph_bytes=length - sum(tensor.bytes for tensor in tensors),
        tensors=tensors,
        layers=tuple(_share(layer, None) for layer in cost.layers),
    )
    try:
        nodes = profiled(path, target)
    except Refused:
        return parts
    return _timed(parts, cost.layers, nodes, path, target)


def stored_tensors(path: Path) -> tuple[StoredTensor, ...]:
    """Every initializer of an ONNX file, plain or packed, with its bytes, the largest first."""
    import onnx

    model, bill = read_packed(path) if path.suffix == ".lil" else (read_model(path), None)
    packed = {entry.name: entry.parts for entry in bill.entries} if bill is not None else {}
    found = [
        StoredTensor(
            name=tensor.name,
            dtype=onnx.TensorProto.DataType.Name(tensor.data_type).lower(),
            shape=tuple(tensor.dims),
            bytes=sum(packed.get(tensor.name, {}).values())
            if bill is not None
            else _with_header(tensor.ByteSize()),
            parts=packed.get(tensor.name, {}),
        )
        for tensor in model.graph.initializer
    ]
    return tuple(sorted(found, key=lambda tensor: -tensor.bytes))


def _with_header(length: int) -> int:
    """A message inside another costs a tag and its length, seven bits a byte."""
    return 1 + max(1, math.ceil(length.bit_length() / 7)) + length


def _timed(
    parts: Anatomy,
    layers: Sequence[LayerCost],
    nodes: Sequence[NodeTime],
    path: Path,
    target: Target,
) -> Anatomy:
    told = explained(path, target, nodes, widths=None)
    names = {layer.name for layer in layers}
    seconds: dict[str, float] = defaultdict(float)
    precision: dict[str, str] = {}
    for node in nodes:
        if node.name in names:
            seconds[node.name] += node.seconds
            precision.setdefault(node.name, node.precision)
    shares = tuple(
        _share(layer, seconds.get(layer.name)).model_copy(
            update={"precision": precision.get(layer.name, layer.precision)}
        )
        for layer in layers
    )
    return parts.model_copy(
        update={
            "layers": shares,
            "others": by_operator([n for n in nodes if n.name not in names], told.seconds),
            "seconds": told.seconds,
            "int8_share": told.int8_share,
            "advice": told.advice,
        }
    )


def _share(layer: LayerCost, seconds: float | None) -> LayerShare:
    return LayerShare(
        name=layer.name,
        kind=layer.kind,
        inputs=layer.inputs,
        outputs=layer.outputs,
        macs=layer.macs,
        params=layer.params,
        precision=layer.precision,
        seconds=seconds,
    )
