"""Scores an int8 file as a CPU without 8-bit dot products would, on any machine.

Such a CPU (x86 before VNNI) multiplies unsigned activations by signed weights, adds the products
of two neighbours in 16 bits, clips that sum to -32768..32767, and only then adds in 32 bits
(the instruction vpmaddubsw). Which weights are neighbours: ONNX Runtime packs the summed axis in
groups of four, in the order (kernel row, kernel column, input channel) for a convolution and the
order of the inputs for a matrix, and pairs elements 2i and 2i + 1 of that order. Depthwise
convolutions have a kernel of their own that sums in 32 bits; so have signed activations. The zero
point is subtracted after the sums: the unsigned activation itself enters the products.

This emulation was compared with ONNX Runtime on an AVX2 machine, where it agrees to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.execute import Feeds
from lilliput.encode.integers import to_rows
from lilliput.encode.moments import windows_of
from lilliput.graph import Graph, attributes
from lilliput.meter.host import saturates
from lilliput.meter.saturation import HIGH, LOW, can_saturate, pair_products
from lilliput.runtimes.opening import check_feeds
from lilliput.runtimes.quiet import quiet_telemetry
from lilliput.runtimes.reference import model_specs

if TYPE_CHECKING:
    import onnx

__all__ = ["OldCpu", "can_saturate", "pair_products", "saturates", "saturating_dot"]

ROWS_AT_ONCE = 1 << 15


def saturating_dot(inputs: Array, weights: Array) -> Array:
    """(R, K) uint8 times (O, K) int8 → (R, O) int32, neighbours added in 16 bits.

    Exact sums by matrix product, then only the pairs that can overflow are looked at one by one.
    """
    exact = _exact_dot(inputs, weights)
    outputs, places = np.nonzero(can_saturate(weights))
    if not len(outputs):
        return exact
    pairs = pair_products(weights)
    values = pair_products(inputs)
    for place in np.unique(places):
        rows = outputs[places == place]
        both = values[:, place].astype(np.int32)
        sums = both[:, :1] * pairs[rows, place, 0] + both[:, 1:] * pairs[rows, place, 1]
        excess = sums - np.clip(sums, LOW, HIGH)
        if excess.any():
            exact[:, rows] -= excess
    return exact


class OldCpu:
    """Executes a QDQ graph with saturating sums in its int8 convolutions and matrix products.

    Everything else runs in ONNX Runtime, operator by operator. With `saturating=False` the same
    machinery gives exact sums: the difference of both is what an old CPU does to the file.
    `layers` names those that are summed here; without one there is nothing to emulate.
    """

    def __init__(self, model: onnx.ModelProto, *, saturating: bool = True) -> None:
        self.graph = Graph.of(model)
        self.inputs = model_specs(model)[0]
        self.saturating = saturating
        self._sessions: dict[str, Any] = {}
        self._integers = _integer_layers(self.graph)
        self.layers = tuple(self._integers)
        self._fused = {layer.quantize.name for layer in self._integers.values() if layer.quantize}
        self._needed = self._last_uses()

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """One batch, inputs in the order of the graph → the graph's outputs."""
        check_feeds(feeds, self.inputs)
        values: dict[str, Array] = dict(zip(self.graph.input_names, feeds, strict=True))
        values |= self.graph.constants
        for step, node in enumerate(self.graph.nodes):
            if node.name in self._fused:
                continue
            layer = self._integers.get(node.name)
            if layer is not None:
                values[layer.output] = self._sum(layer, values)
            else:
                values.update(self._plain(node, values))
            for name in self._needed.get(step, ()):
                values.pop(name, None)
        return [values[name] for name in self.graph.output_names]

    def over(self, feeds: Feeds) -> list[Array]:
        """The first output of every batch."""
        return [self.run(batch)[0] for batch in feeds()]

    def _last_uses(self) -> dict[int, list[str]]:
        """{step: tensors that nobody reads after it}."""
        last: dict[str, int] = {}
        for step, node in enumerate(self.graph.nodes):
            layer = self._integers.get(node.name)
            names = list(node.input) + ([layer.source] if layer else [])
            for name in names:
                last[name] = step
        gone: dict[int, list[str]] = {}
        kept = self.graph.constants.keys() | self.graph.pinned
        for name, step in last.items():
            if name not in kept:
                gone.setdefault(step, []).append(name)
        return gone

    def _sum(self, layer: _IntegerLayer, values: dict[str, Array]) -> Array:
        inputs = values[layer.source]
        dot: Callable[[Array, Array], Array] = _exact_dot
        if self.saturating and inputs.dtype == np.uint8 and layer.weights.dtype == np.int8:
            dot = saturating_dot
        sums = (
            _convolve(layer, inputs, dot) if layer.op == "Conv" else _multiply(layer, inputs, dot)
        )
        spread = (1, -1, 1, 1) if layer.op == "Conv" else (-1,)
        total = sums + layer.bias.reshape(spread)
        scale = (np.float32(layer.input_scale) * layer.weight_scales).reshape(spread)
        if layer.quantize is None:
            return np.asarray(total.astype(np.float32) * scale)
        # The order of the runtime: one float factor, round half to even, then the zero point.
        factor = (scale / np.float32(layer.output_scale)).astype(np.float32)
        steps = np.rint(total.astype(np.float32) * factor) + layer.output_zero
        limits = np.iinfo(layer.output_type)
        return np.asarray(np.clip(steps, limits.min, limits.max), layer.output_type)

    def _plain(self, node: onnx.NodeProto, values: dict[str, Array]) -> dict[str, Array]:
        if all(not name or name in self.graph.constants for name in node.input) and (
            node.op_type == "DequantizeLinear"
        ):
            # Weights of integer layers are taken as integers; computing them here is for the rest.
            readers = self.graph.readers.get(node.output[0], [])
            if readers and all(reader.name in self._integers for reader in readers):
                return {}
        if node.name not in self._sessions:
            self._sessions[node.name] = _session(self.graph, node, values)
        session = self._sessions[node.name]
        feeds = {name: values[name] for name in dict.fromkeys(node.input) if name}
        return dict(zip(node.output, session.run(list(node.output), feeds), strict=True))


@dataclass(frozen=True)
class _IntegerLayer:
    """A Conv, Gemm or MatMul whose operands are integers, with everything it sums."""

    op: str
    source: str
    output: str
    weights: Array
    weight_scales: Array
    bias: Array
    input_scale: float
    input_zero: int
    facts: dict[str, Any]
    kernel: tuple[int, ...]
    groups: int
    quantize: onnx.NodeProto | None
    output_scale: float
    output_zero: int
    output_type: Any


def _integer_layers(graph: Graph) -> dict[str, _IntegerLayer]:
    found = {}
    for node in graph.nodes:
        layer = _integer_layer(graph, node)
        if layer is not None:
            found[node.name] = layer
    return found


def _integer_layer(graph: Graph, node: onnx.NodeProto) -> _IntegerLayer | None:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    sources = [graph.producers.get(name) for name in node.input[:2]]
    if any(s is None or s.op_type != "DequantizeLinear" for s in sources):
        return None
    data, weight = (s for s in sources if s is not None)
    stored = graph.constants.get(weight.input[0])
    if stored is None or graph.constants.get(data.input[1]) is None:
        return None
    facts = attributes(node)
    if node.op_type == "Conv" and stored.ndim != 4:
        return None
    if node.op_type != "Conv" and (stored.ndim != 2 or facts.get("transA", 0)):
        return None
    axis = 0 if node.op_type == "Conv" or facts.get("transB", 0) else 1
    rows = to_rows(stored, axis)
    scales = np.broadcast_to(graph.weights(weight.input[1]).reshape(-1), (len(rows),))
    input_scale = float(graph.weights(data.input[1]).reshape(-1)[0])
    quantize = _quantizer_after(graph, node)
    output_scale, output_zero, kind = _grid_of(graph, quantize)
    factor = np.float32(input_scale) * scales.astype(np.float32)
    return _IntegerLayer(
        op=node.op_type,
        source=data.input[0],
        output=quantize.output[0] if quantize is not None else node.output[0],
        weights=rows,
        weight_scales=scales.astype(np.float32),
        bias=_integer_bias(graph, node, factor),
        input_scale=input_scale,
        input_zero=_zero(graph, data),
        facts=facts,
        kernel=tuple(stored.shape[2:]),
        groups=int(facts.get("group", 1)),
        quantize=quantize,
        output_scale=output_scale,
        output_zero=output_zero,
        output_type=kind,
    )


def _quantizer_after(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    reader = graph.sole_reader(node.output[0])
    return reader if reader is not None and reader.op_type == "QuantizeLinear" else None


def _grid_of(graph: Graph, quantize: onnx.NodeProto | None) -> tuple[float, int, Any]:
    if quantize is None:
        return 1.0, 0, np.uint8
    kind = np.uint8
    if len(quantize.input) > 2 and quantize.input[2]:
        kind = graph.weights(quantize.input[2]).dtype.type
    return float(graph.weights(quantize.input[1]).reshape(-1)[0]), _zero(graph, quantize), kind


def _zero(graph: Graph, node: onnx.NodeProto) -> int:
    if len(node.input) < 3 or not node.input[2]:
        return 0
    return int(graph.weights(node.input[2]).reshape(-1)[0])


def _integer_bias(graph: Graph, node: onnx.NodeProto, factor: Array) -> Array:
    """(O,) the bias in units of the sums."""
    name = node.input[2] if len(node.input) > 2 else ""
    if not name:
        return np.zeros(len(factor), np.int64)
    maker = graph.producers.get(name)
    if maker is not None and maker.op_type == "DequantizeLinear":
        stored = graph.weights(maker.input[0])
        return stored.reshape(-1).astype(np.int64)
    return np.rint(graph.weights(name).reshape(-1) / factor).astype(np.int64)


def _convolve(layer: _IntegerLayer, inputs: Array, dot: Callable[[Array, Array], Array]) -> Array:
    """(N, C, H, W) integers → (N, O, OH, OW) int64 sums, zero point subtracted."""
    high, wide = layer.kernel
    windows = windows_of(inputs, (high, wide), layer.facts, layer.input_zero)
    batch, channels, rows, columns = windows.shape[:4]
    per_group, outs = channels // layer.groups, len(layer.weights) // layer.groups
    if per_group == 1 and layer.groups > 1:
        dot = _exact_dot
    result = np.empty((batch, len(layer.weights), rows, columns), np.int64)
    step = max(1, ROWS_AT_ONCE // max(rows * columns, 1))
    for group in range(layer.groups):
        weights = layer.weights[group * outs : (group + 1) * outs]
        lost = layer.input_zero * weights.sum(1, dtype=np.int64)
        part = windows[:, group * per_group : (group + 1) * per_group]
        for start in range(0, batch, step):
            taken = part[start : start + step].transpose(0, 2, 3, 4, 5, 1)
            flat = np.ascontiguousarray(taken).reshape(-1, weights.shape[1])
            sums = dot(flat, weights) - lost
            shaped = sums.reshape(-1, rows, columns, outs).transpose(0, 3, 1, 2)
            result[start : start + step, group * outs : (group + 1) * outs] = shaped
    return result


def _multiply(layer: _IntegerLayer, inputs: Array, dot: Callable[[Array, Array], Array]) -> Array:
    """(..., K) integers → (..., O) int64 sums, zero point subtracted."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    sums = dot(flat, layer.weights) - layer.input_zero * layer.weights.sum(1, dtype=np.int64)
    return np.asarray(sums.reshape(*inputs.shape[:-1], len(layer.weights)))


def _exact_dot(inputs: Array, weights: Array) -> Array:
    """(R, K) times (O, K) → (R, O) int64; float products are exact as long as they fit."""
    bound = 255 * int(np.abs(weights.astype(np.int64)).sum(1).max(initial=0))
    kind = np.float32 if bound < 1 << 24 else np.float64
    return np.asarray(np.rint(np.matmul(inputs.astype(kind), weights.astype(kind).T)), np.int64)


def _session(graph: Graph, node: onnx.NodeProto, values: dict[str, Array]) -> Any:
    """A session of one operator."""
    import onnx

    quiet_telemetry()
    import onnxruntime

    inputs = [
        onnx.helper.make_tensor_value_info(
            name,
            onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype),
            [None] * values[name].ndim,
        )
        for name in dict.fromkeys(node.input)
        if name
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "one", inputs, outputs),
        opset_imports=graph.frame.opset_import,
        ir_version=graph.frame.ir_version,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        alone.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
