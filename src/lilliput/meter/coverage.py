"""Which layers of a file really run in int8: looked up in the runtime, not in the file's wishes.

A file full of quantize and dequantize operators can still compute in float: a runtime fuses them
into integer kernels only where it has one for exactly that pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from lilliput.graph import Graph
from lilliput.meter.cost import WEIGHTED
from lilliput.noun import Noun
from lilliput.onnx_io import as_onnx, read_model
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.opening import open_session, random_feeds
from lilliput.target import Target

if TYPE_CHECKING:
    import onnx

INTEGER_OPS = frozenset(
    {
        *("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "QGemm"),
        *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearConvTranspose"),
    }
)
FLOAT_OPS = frozenset(
    {
        *("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose"),
        *("Gemm", "FusedGemm", "MatMul", "FusedMatMul"),
    }
)
OPENVINO_WEIGHTED = frozenset(
    {"Convolution", "GroupConvolution", "FullyConnected", "MatMul", "Deconvolution"}
)
_ADDED = re.compile(r"(_token_\d+|_nchwc|_nhwc|/WithoutBiases|_kernel_time)+$")


class Coverage(Noun):
    """The layers with weights, by what they run in. `reasons` says why a layer stayed float."""

    quantized: tuple[str, ...]
    floats: tuple[str, ...]
    reasons: dict[str, str] = Field(default_factory=dict)

    @property
    def total(self) -> int:
        return len(self.quantized) + len(self.floats)

    @property
    def line(self) -> str:
        """For example: quantized 52 of 53 weighted layers, skipped: head (its weight is float)."""
        text = f"quantized {len(self.quantized)} of {self.total} weighted layers"
        if self.quantized and self.floats:
            text += ", skipped: " + ", ".join(
                f"{name} ({self.reasons[name]})" if name in self.reasons else name
                for name in self.floats
            )
        return text

    def __str__(self) -> str:
        return self.line


def coverage(path: Path | str, target: Target) -> Coverage:
    """What the target's runtime makes of each weighted layer of an ONNX file.

    ONNX Runtime is asked for its optimized graph, OpenVINO for the kernels that it executed;
    for other runtimes the file's own operators count.
    """
    graph = Graph.of(read_model(path))
    with as_onnx(path) as plain:
        if target.runtime == "onnxruntime":
            from lilliput.runtimes.ort import optimized_graph

            found = list(_in_graph(optimized_graph(plain, target).graph))
        elif target.runtime == "openvino":
            found = list(_executed(plain, target))
        else:
            found = list(_as_written(graph))
    origin = Origins(graph)
    named = [(origin.of(name), integer) for name, integer in found if not origin.is_norm(name)]
    floats = tuple(name for name, integer in named if not integer)
    return Coverage(
        quantized=tuple(name for name, integer in named if integer),
        floats=floats,
        reasons={name: reason for name in floats if (reason := origin.why_float(name))},
    )


class Origins:
    """Finds the layers of a file again in a graph that a runtime has fused and renamed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def of(self, name: str) -> str:
        """The file's name of a runtime's operator; the name itself if there is no trace of it."""
        bare = _ADDED.sub("", name)
        if bare in self.graph.named and self.graph.named[bare].op_type in WEIGHTED:
            return bare
        start = self.graph.named.get(bare) or self.graph.producers.get(bare)
        found = None if start is None else self._weighted_before(start)
        return bare if found is None else str(found.name)

    def is_norm(self, name: str) -> bool:
        """Whether ONNX Runtime made this convolution, one weight a channel, of a batch norm."""
        bare = _ADDED.sub("", name)
        stem = bare.removesuffix("_bn")
        maker = self.graph.producers.get(stem) or self.graph.named.get(stem)
        return stem != bare and maker is not None and maker.op_type == "BatchNormalization"

    def why_float(self, name: str) -> str | None:
        """Why a layer of a quantized file was not taken into an integer kernel; None if it is
        simply a float file, or the layer is not known.
        """
        node = self.graph.named.get(name)
        quantized = any(other.op_type == "QuantizeLinear" for other in self.graph.nodes)
        if node is None or not quantized:
            return None
        weight_at, data_at = WEIGHTED.get(node.op_type, (1, 0))
        if not self.graph.dequantized(node.input[data_at]):
            return "its input is float"
        if not self.graph.dequantized(node.input[weight_at]):
            return "its weight is float"
        after = [reader.op_type for reader in self.graph.readers.get(node.output[0], ())]
        if not {"QuantizeLinear", "Relu", "Clip"} & set(after):
            return "its output is not quantized"
        return "this runtime has no integer kernel for the pattern"

    def _weighted_before(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The nearest weighted operator at or above a node (of a sum: on its first branch)."""
        waiting = [node]
        seen: set[str] = set()
        while waiting:
            current = waiting.pop(0)
            if current.op_type in WEIGHTED:
                return current
            for value in current.input:
                maker = self.graph.producers.get(value)
                if maker is not None and value not in seen:
                    seen.add(value)
                    waiting.append(maker)
        return None


def _in_graph(graph: onnx.GraphProto) -> Iterator[tuple[str, bool]]:
    """(name, runs in int8) of each operator with stored weights."""
    stored = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in INTEGER_OPS:
            yield node.name or node.output[0], True
        elif node.op_type in FLOAT_OPS and (
            stored & set(node.input[1:]) or _behind_dequantize(graph, node)
        ):
            yield node.name or node.output[0], False


def _behind_dequantize(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Whether a float operator's weight is stored as integers and converted at every run."""
    stored = {tensor.name for tensor in graph.initializer}
    return any(
        maker.op_type == "DequantizeLinear" and maker.input[0] in stored
        for maker in graph.node
        if set(maker.output) & set(node.input[1:])
    )


def _executed(path: Path, target: Target) -> Iterator[tuple[str, bool]]:
    session = open_session(path, target)
    feeds = random_feeds(session.inputs)
    session.close()
    for node in RUNTIMES[target.runtime].profile(path, target, feeds):
        if node.op in OPENVINO_WEIGHTED:
            yield node.name, node.precision == "int8"


def _as_written(graph: Graph) -> Iterator[tuple[str, bool]]:
    for node in graph.nodes:
        if node.op_type in INTEGER_OPS:
            yield node.name, True
        elif node.op_type in WEIGHTED:
            yield node.name, graph.dequantized(node.input[WEIGHTED[node.op_type][1]])
