"""Writes an int8 graph in QDQ form: integers on disk, no float copies of what became int8.

`real = scale * (integer - zero_point)`; activations uint8, weights int8 per output channel, biases
int32 at the product of both scales. Source: the ONNX operators QuantizeLinear and
DequantizeLinear at opset 13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.integers import TINY_SCALE, Affine
from lilliput.encode.layers import Layer, by_weight
from lilliput.encode.placement import Placement, data_inputs, result
from lilliput.errors import Refused
from lilliput.graph import Graph

if TYPE_CHECKING:
    import onnx


MOST_STEPS = 2**30
"""Of a bias; the products that are added to it have the other half of 32 bits."""

FREE_STEPS = 2**24
"""Of a bias whose channel has no weights but zeros, so that nothing else asks for a scale."""


@dataclass(frozen=True)
class Integers:
    """A quantized weight: int8 values of the weight's shape, float32 scales per channel."""

    values: Array
    scales: Array
    axis: int

    @property
    def real(self) -> Array:
        """The float32 weight that these integers stand for."""
        scales = self.scales.astype(np.float32)
        return self.values.astype(np.float32) * per_axis(scales, self.values.ndim, self.axis)


@dataclass(frozen=True)
class Encoding:
    """Everything that turns a placement into numbers.

    `activations` maps representatives to their affine map, `weights` initializer names to their
    integers (shared weights are stored once), `biases` node names to a float bias (O,) that
    replaces the network's own: a correction does not touch other users of a shared bias.
    """

    activations: Mapping[str, Affine]
    weights: Mapping[str, Integers]
    biases: Mapping[str, Array] = field(default_factory=dict)


def holding(integers: Integers, steps: Array) -> Integers:
    """The integers at scales at which biases fit into 32 bits and keep their precision.

    Args:
        integers: Of a weight.
        steps: (O,) largest bias of each channel over the scale of what the layer reads: what the
            bias takes in steps of a weight's scale of 1.
    """
    values, axis = integers.values, integers.axis
    free = ~values.any(axis=tuple(n for n in range(values.ndim) if n != axis)) & (steps > 0)
    least = np.where(free, steps / FREE_STEPS, np.maximum(integers.scales, steps / MOST_STEPS))
    scales = np.maximum(least, TINY_SCALE).astype(np.float32)
    if np.array_equal(scales, integers.scales):
        return integers
    finer = (integers.scales / scales).astype(np.float64)
    coarser = np.rint(values * per_axis(finer, values.ndim, axis)).astype(np.int8)
    return Integers(coarser, scales, axis)


def per_axis(numbers: Array, ndim: int, axis: int) -> Array:
    """(O,) numbers in a shape that multiplies the axis of an array of `ndim` axes."""
    shape = [1] * ndim
    shape[axis] = -1
    return numbers.reshape(shape)


def bias_of(graph: Graph, layer: Layer) -> Array:
    """The layer's own bias as (O,) float64, zeros where it has none."""
    channels = graph.weights(layer.weight).shape[layer.axis]
    if not layer.bias:
        return np.zeros(channels)
    own = graph.weights(layer.bias).reshape(-1).astype(np.float64)
    return np.broadcast_to(own, (channels,)).copy()


def write_qdq(graph: Graph, placement: Placement, encoding: Encoding) -> onnx.ModelProto:
    """The int8 model.

    Raises:
        Refused: no weighted layer would run in int8, with the reasons.
    """
    if not placement.layers:
        raise Refused(
            f"nothing to quantize: {placement.coverage}",
            hint="int8 helps networks with Conv, Gemm or MatMul layers; deploy this one in float",
        )
    writer = _Writer(graph.copy(), placement, encoding)
    return writer.write()


class _Writer:
    """Builds the node list of one int8 model; used once."""

    def __init__(self, graph: Graph, placement: Placement, encoding: Encoding) -> None:
        self.graph, self.placement, self.encoding = graph, placement, encoding
        self.layers = {layer.node: layer for layer in placement.layers}
        self.users = by_weight(placement.layers)
        self.dropped = set(placement.merged.values())
        self.made: dict[str, tuple[str, str]] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.readers: dict[str, str] = {}
        self.weights: dict[str, tuple[str, Integers]] = {}

    def write(self) -> onnx.ModelProto:
        for name in self.graph.input_names:
            if name in self.placement.tensors:
                self._quantize_float(name)
        for node in self.graph.nodes:
            if node.name in self.dropped:
                continue
            if node.name in self.placement.int8:
                self._int8(node)
            else:
                self._float(node)
        self.graph.nodes = self.nodes
        self.graph.prune()
        return self.graph.model()

    def _float(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)
        for name in node.output:
            if name in self.placement.tensors:
                self._quantize_float(name)

    def _int8(self, node: onnx.NodeProto) -> None:
        wanted = set(data_inputs(self.graph, node))
        for position, name in enumerate(node.input):
            if name in wanted:
                node.input[position] = self.readers.get(name, name)
        layer = self.layers.get(node.name)
        if layer is not None:
            self._weigh(node, layer)
        output = result(self.graph, self.placement.merged, node)
        outputs = list(node.output) if output == node.output[0] else [output]
        for position, name in enumerate(outputs):
            if name in self.placement.tensors:
                node.output[position] = self.graph.fresh(f"{name}_float")
            else:
                node.output[position] = name
        self.nodes.append(node)
        if output not in self.placement.tensors and output in self.dropped_outputs:
            self._restore_activation(node, output)
        for position, name in enumerate(outputs):
            if name in self.placement.tensors:
                self._pair(node.output[position], name, name)

    @property
    def dropped_outputs(self) -> set[str]:
        return {self.graph.named[name].output[0] for name in self.dropped}

    def _restore_activation(self, node: onnx.NodeProto, output: str) -> None:
        # The result stays float (a Gemm that only float nodes read): its Relu has work to do.
        activation = self.graph.named[self.placement.merged[node.name]]
        node.output[0] = activation.input[0]
        self.nodes.append(activation)
        assert activation.output[0] == output

    def _quantize_float(self, name: str) -> None:
        """Quantize a float-made tensor for its int8 readers; float readers keep the original."""
        result_name = self.graph.fresh(f"{name}_dequantized")
        self._pair(name, name, result_name)
        self.readers[name] = result_name

    def _pair(self, source: str, tensor: str, target: str) -> None:
        """Add source → QuantizeLinear → DequantizeLinear → target."""
        scale, zero = self._scale_of(tensor)
        integers = self.graph.fresh(f"{tensor}_quantized")
        self._node("QuantizeLinear", [source, scale, zero], integers)
        self._node("DequantizeLinear", [integers, scale, zero], target)

    def _scale_of(self, tensor: str) -> tuple[str, str]:
        root = self.placement.tensors[tensor]
        affine = self.encoding.activations[root]
        if root not in self.made:
            names = (self.graph.fresh(f"{root}_scale"), self.graph.fresh(f"{root}_zero_point"))
            self.made[root] = names
            self.graph.constants[names[0]] = np.array(affine.scale, np.float32)
            self.graph.constants[names[1]] = np.array(affine.zero_point, np.uint8)
        return self.made[root]

    def _weigh(self, node: onnx.NodeProto, layer: Layer) -> None:
        """Replace the float weight and bias by DequantizeLinear of their integers."""
        if layer.weight not in self.weights:
            integers = self._holding_biases(layer.weight)
            stem = self.graph.fresh(f"{layer.weight}_quantized")
            self.graph.constants[stem] = integers.values
            self.graph.constants[f"{stem}_scale"] = integers.scales.astype(np.float32)
            zeros = np.zeros(len(integers.scales), np.int8)
            self.graph.constants[f"{stem}_zero_point"] = zeros
            self.weights[layer.weight] = stem, integers
        stem, integers = self.weights[layer.weight]
        target = self.graph.fresh(f"{node.name}_weight")
        inputs = [stem, f"{stem}_scale", f"{stem}_zero_point"]
        self._node("DequantizeLinear", inputs, target, axis=integers.axis)
        node.input[1] = target
        bias = self._bias_of(layer)
        if layer.bias or np.any(bias):
            self._bias(node, layer, bias, integers)

    def _holding_biases(self, weight: str) -> Integers:
        layers = self.users[weight]
        steps = [np.abs(self._bias_of(x)) / np.float64(self._input_scale(x)) for x in layers]
        return holding(self.encoding.weights[weight], np.max(steps, axis=0))

    def _bias_of(self, layer: Layer) -> Array:
        own = self.encoding.biases.get(layer.node)
        return bias_of(self.graph, layer) if own is None else own

    def _bias(self, node: onnx.NodeProto, layer: Layer, bias: Array, integers: Integers) -> None:
        if layer.op == "MatMul":
            raise Refused(f"{layer.path} is a MatMul, which takes no bias")
        scale = self._input_scale(layer) * integers.scales.astype(np.float32)
        values = np.rint(bias / scale.astype(np.float64))
        stem = self.graph.fresh(f"{node.name}_bias_quantized")
        limit = np.iinfo(np.int32)
        self.graph.constants[stem] = np.clip(values, limit.min, limit.max).astype(np.int32)
        self.graph.constants[f"{stem}_scale"] = scale
        target = self.graph.fresh(f"{node.name}_bias")
        self._node("DequantizeLinear", [stem, f"{stem}_scale"], target, axis=0)
        if len(node.input) > 2:
            node.input[2] = target
        else:
            node.input.append(target)

    def _input_scale(self, layer: Layer) -> np.float32:
        root = self.placement.tensors[layer.input]
        return np.float32(self.encoding.activations[root].scale)

    def _node(self, op: str, inputs: list[str], output: str, **facts: int) -> None:
        import onnx

        name = f"{output}_{op}"
        self.nodes.append(onnx.helper.make_node(op, inputs, [output], name=name, **facts))
