"""What a file holds and computes: multiply-adds, weights, widths, by its graph alone.

Multiply-adds are an estimate of work, never of time: they are marked so wherever they are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError
from lilliput.graph import Graph, attributes
from lilliput.graph.constants import known_ahead
from lilliput.graph.shapes import Shapes, inferred_shapes
from lilliput.measurement import Measurement
from lilliput.noun import Noun
from lilliput.onnx_io import SUFFIXES, read_model
from lilliput.runtimes.reference import model_specs

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

WEIGHTED = {
    "Conv": (1, 0),
    "ConvInteger": (1, 0),
    "QLinearConv": (3, 0),
    "ConvTranspose": (1, 0),
    "Gemm": (1, 0),
    "MatMul": (1, 0),
    "MatMulInteger": (1, 0),
    "QLinearMatMul": (3, 0),
}
"""Operators with weights: the positions of their weight and data inputs."""

INTEGER = frozenset({"ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"})
_PASSING = frozenset({"DequantizeLinear", "QuantizeLinear", "Identity", "Cast", "Transpose"})
_FLOATS_AND_BYTES = frozenset({1, 2, 3, 6, 10, 11, 16, 21, 22})


class LayerCost(Noun):
    """One operator with weights. `macs` is for the whole batch; `bytes_moved` counts its data."""

    name: str
    op: str
    kind: str
    inputs: int
    outputs: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    macs: float
    params: int
    bytes_moved: float
    precision: str = "fp32"


class Cost(Noun):
    """One file. `macs` is of one example; `params` counts a shared weight once."""

    macs: float
    params: int
    bytes: int
    layers: tuple[LayerCost, ...]

    @property
    def widths(self) -> dict[str, int]:
        """{layer: output channels}."""
        return {layer.name: layer.outputs for layer in self.layers}

    def measurements(self) -> tuple[Measurement, ...]:
        """The figures "bytes", "macs" and "params"; the last two are marked as estimates."""
        return (
            Measurement(quantity="bytes", value=self.bytes, unit="B"),
            Measurement(quantity="macs", value=self.macs, unit="MACs", estimated=True),
            Measurement(quantity="params", value=self.params, unit="", estimated=True),
        )


def file_cost(path: Path | str) -> Cost:
    """Multiply-adds, weights and widths of an ONNX file, by shape inference.

    Free sizes count as the file's own sample shapes say, or as one. Float, quantize-dequantize and
    integer operators are counted alike.

    Raises:
        LilliputError: The file is not ONNX, or a layer's shape cannot be inferred.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise LilliputError(
            f"the cost of {path.name!r} is unknown", hint="give an .onnx or a .lil file"
        )
    return model_cost(read_model(path), path.stat().st_size)


def model_cost(model: ModelProto, size: int) -> Cost:
    """`file_cost` of a model that was read from a file of `size` bytes."""
    graph = Graph.of(model)
    batch = concrete_inputs(graph, model_specs(model)[0])
    known = Known(graph, inferred_shapes(graph))
    once = known_ahead(graph)
    layers = tuple(
        layer_cost(node, known)
        for node in graph.nodes
        if node.op_type in WEIGHTED and node.output[0] not in once
    )
    return Cost(
        macs=sum(layer.macs for layer in layers) / batch,
        params=count_params(model),
        bytes=size,
        layers=layers,
    )


def concrete_inputs(graph: Graph, declared: Sequence[TensorSpec]) -> int:
    """Fill in every free input size (batch 1, or the file's own sample); returns the batch size."""
    specs = {spec.name: spec for spec in declared}
    batch = 1
    for value in graph.inputs:
        sizes = specs[value.name].concrete(1)
        batch = max(batch, sizes[0] if sizes else 1)
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
            dim.dim_value = size
    for value in graph.outputs:
        value.type.tensor_type.ClearField("shape")
    return batch


def count_params(model: ModelProto) -> int:
    """Numbers that were learned: no scales, zero points, shapes or lone constants."""
    graph = model.graph
    bookkeeping = set()
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            bookkeeping |= set(node.input[1:])
        elif node.op_type in ("QLinearConv", "QLinearMatMul"):
            bookkeeping |= {node.input[i] for i in (1, 2, 4, 5, 6, 7)}
    return sum(
        math.prod(tensor.dims)
        for tensor in graph.initializer
        if tensor.dims and tensor.name not in bookkeeping and tensor.data_type in _FLOATS_AND_BYTES
    )


def layer_kind(*, op: str, kernel: tuple[int, ...], groups: int, inputs: int) -> str:
    """The field's name for a layer: conv3x3, conv1x1, depthwise, grouped, linear, ..."""
    if "Conv" not in op:
        return "linear"
    shape = "x".join(map(str, kernel))
    if groups > 1:
        return f"depthwise{shape}" if groups == inputs else f"grouped{shape}"
    return f"transposed{shape}" if op == "ConvTranspose" else f"conv{shape}"


@dataclass(frozen=True)
class Known:
    """A graph, with what shape inference finds in it."""

    graph: Graph
    shapes: Shapes

    def shape(self, name: str, node: NodeProto) -> tuple[int, ...]:
        """The shape without free sizes, or an error naming the operator."""
        shape = self.shapes.get(name)
        if shape is None or not all(isinstance(size, int) for size in shape):
            raise LilliputError(
                f"the shapes around {node.op_type} {node.name!r} are unknown",
                hint="export the network with fixed sizes, or name its sample shape in the "
                "metadata",
            )
        return tuple(int(size or 0) for size in shape)

    def is_stored(self, name: str) -> bool:
        """Whether a tensor is a stored weight, perhaps behind a DequantizeLinear."""
        while (maker := self.graph.producers.get(name)) and maker.op_type in _PASSING:
            name = maker.input[0]
        return maker is None and name not in self.graph.input_names


def layer_cost(node: NodeProto, known: Known) -> LayerCost:
    """The cost of one weighted operator."""
    weight_at, data_at = WEIGHTED[node.op_type]
    weight, data, made = (
        known.shape(name, node)
        for name in (node.input[weight_at], node.input[data_at], node.output[0])
    )
    settings = attributes(node)
    groups = settings.get("group", 1)
    kernel: tuple[int, ...] = ()
    if node.op_type == "ConvTranspose":
        kernel, inputs, outputs = weight[2:], weight[0], weight[1] * groups
        macs = math.prod(data) * math.prod(weight[1:])
    elif "Conv" in node.op_type:
        kernel, inputs, outputs = weight[2:], weight[1] * groups, weight[0]
        macs = math.prod(made) * math.prod(weight[1:])
    else:
        inputs, outputs = (weight[-2], weight[-1]) if len(weight) > 1 else (weight[0], 1)
        if settings.get("transB", 0):
            inputs, outputs = outputs, inputs
        macs = math.prod(made) * inputs
    integer = node.op_type in INTEGER or known.graph.dequantized(node.input[data_at])
    stored = known.is_stored(node.input[weight_at])
    moved = math.prod(data) + math.prod(weight) + math.prod(made)
    return LayerCost(
        name=node.name,
        op=node.op_type,
        kind=layer_kind(op=node.op_type, kernel=kernel, groups=groups, inputs=inputs),
        inputs=inputs,
        outputs=outputs,
        groups=groups,
        kernel=kernel,
        macs=float(macs),
        params=math.prod(weight) if stored else 0,
        bytes_moved=float((1 if integer else 4) * moved),
        precision="int8" if integer else "fp32",
    )
