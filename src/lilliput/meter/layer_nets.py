"""Tiny ONNX networks of equal layers, made by hand: what widths and overheads are measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

KINDS = ("conv3x3", "conv1x1", "depthwise", "grouped")
PRECISIONS = ("fp32", "int8")
LAYERS = 4
GROUPS = 4
SIDE = 16
OPSET, IR_VERSION = 17, 8


def layer_chain(
    width: int,
    kind: str,
    precision: str = "fp32",
    *,
    layers: int = LAYERS,
    side: int = SIDE,
    weight_bits: int = 8,
    seed: int = 0,
) -> onnx.ModelProto:
    """`layers` convolutions with ReLU, `width` channels each, on (1, width, side, side).

    "grouped": 3×3, with so many channels in each of four groups.

    int8: unsigned activations and signed weights with a scale per channel between quantize and
    dequantize operators, as `quantize` writes them; `weight_bits` 7 leaves the pairs of products
    room in 16 bits, for CPUs that saturate.
    """
    from onnx import TensorProto, helper

    width *= GROUPS if kind == "grouped" else 1
    chain = _Chain(width, kind, weight_bits=weight_bits, seed=seed)
    value = "input"
    for index in range(layers):
        value = (
            chain.float_layer(value, index)
            if precision == "fp32"
            else chain.int8_layer(value, index)
        )
    if precision != "fp32":
        value = chain.dequantized(value)
    shape = [1, width, side, side]
    graph = helper.make_graph(
        chain.nodes,
        f"{kind}_{width}_{precision}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        chain.constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


class _Chain:
    """Nodes and constants of one network as it grows."""

    def __init__(self, width: int, kind: str, *, weight_bits: int, seed: int) -> None:
        self._width, self._kind = width, kind
        self._groups = {"depthwise": width, "grouped": GROUPS}.get(kind, 1)
        self._side = 1 if kind == "conv1x1" else 3
        self._limit = 2 ** (weight_bits - 1) - 1
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._scale = self._constant("scale", np.array(4.0 / 255, np.float32))
        self._zero = self._constant("zero", np.array(0, np.uint8))

    def float_layer(self, value: str, index: int) -> str:
        weight = self._constant(f"weight{index}", self._weights())
        bias = self._constant(f"bias{index}", np.zeros(self._width, np.float32))
        return self._conv([value, weight, bias], index)

    def int8_layer(self, value: str, index: int) -> str:
        """`value` is float for the first layer, unsigned 8-bit after it; gives 8-bit."""
        if index == 0:
            value = self._node("QuantizeLinear", [value, self._scale, self._zero])
        floats = self._weights()
        scales = np.abs(floats).max(axis=(1, 2, 3)) / self._limit
        integers = np.rint(floats / scales[:, None, None, None]).astype(np.int8)
        weight = self._constant(f"weight{index}", integers)
        scale = self._constant(f"weight_scale{index}", scales.astype(np.float32))
        zero = self._constant(f"weight_zero{index}", np.zeros(self._width, np.int8))
        bias = self._constant(f"bias{index}", np.zeros(self._width, np.int32))
        bias_scale = self._constant(f"bias_scale{index}", (scales * (4.0 / 255)).astype(np.float32))
        bias_zero = self._constant(f"bias_zero{index}", np.zeros(self._width, np.int32))
        inputs = [
            self.dequantized(value),
            self._node("DequantizeLinear", [weight, scale, zero], axis=0),
            self._node("DequantizeLinear", [bias, bias_scale, bias_zero], axis=0),
        ]
        return self._node("QuantizeLinear", [self._conv(inputs, index), self._scale, self._zero])

    def dequantized(self, value: str) -> str:
        return self._node("DequantizeLinear", [value, self._scale, self._zero])

    def _conv(self, inputs: list[str], index: int) -> str:
        sides = [self._side, self._side]
        made = self._node(
            "Conv",
            inputs,
            name=f"conv{index}",
            kernel_shape=sides,
            pads=[self._side // 2] * 4,
            group=self._groups,
        )
        return self._node("Relu", [made], name=f"relu{index}")

    def _weights(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """He-scaled normal weights (O, I / groups, k, k), so that activations keep their size."""
        shape = (self._width, self._width // self._groups, self._side, self._side)
        scale = (2.0 / np.prod(shape[1:])) ** 0.5
        weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
        weights = (self._rng.standard_normal(shape) * scale).astype(np.float32)
        return weights

    def _node(self, op: str, inputs: list[str], **settings: object) -> str:
        from onnx import helper

        output = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **settings))
        return output

    def _constant(self, name: str, value: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(value, name))
        return name
