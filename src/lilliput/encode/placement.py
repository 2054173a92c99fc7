"""Which nodes of a float graph run in int8, and which tensors are quantized for them.

The rules are those under which ONNX Runtime and OpenVINO fuse a QDQ graph into integer kernels: an
int8 operator has quantized inputs and a quantized output, an activation that quantization
makes redundant vanishes, operators that only move data share one scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lilliput.encode.layers import Layer, layers_of, per_channel
from lilliput.graph import Graph, attributes

if TYPE_CHECKING:
    import onnx

MOVES = frozenset(
    (
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile"),
        *("Slice", "Pad", "Gather", "Split", "MaxPool", "DepthToSpace", "SpaceToDepth"),
    )
)
"""Operators whose output holds only values of their first input (or zeros)."""

COMPUTES = frozenset(
    ("Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "LeakyRelu", "Sigmoid")
)
"""Unweighted operators with an int8 kernel and a scale of their own."""

FLAT_BELOW = {"Gelu": -5.0, "HardSwish": -3.0}
"""Below these the activation is 0 (GELU: to within 2e-6)."""

INT8_WEIGHTED = frozenset(("Conv", "Gemm", "MatMul"))


@dataclass(frozen=True)
class Placement:
    """The plan of an int8 graph, before any scale is known.

    `int8` are the nodes that run in int8. `merged` maps a node to the Relu or Clip that its
    quantized output replaces. `tensors` maps every quantized activation to its representative,
    whose scale it shares. `layers` are the weighted layers in int8, `floats` says for every
    other weighted layer why not.
    """

    int8: frozenset[str]
    merged: Mapping[str, str]
    tensors: Mapping[str, str]
    layers: tuple[Layer, ...]
    floats: Mapping[Layer, str] = field(default_factory=dict)

    @property
    def skipped(self) -> dict[str, str]:
        """{module path: why not in int8}; one line for a module that is called several times."""
        return {layer.path: why for layer, why in self.floats.items()}

    @property
    def coverage(self) -> str:
        """The coverage line: "quantized 52 of 53 weighted layers, skipped: ..."."""
        total = len(self.layers) + len(self.floats)
        line = f"quantized {len(self.layers)} of {total} weighted layers"
        skipped = list(self.skipped.items())
        if skipped:
            listed = "; ".join(f"{path} ({why})" for path, why in skipped[:8])
            more = f" and {len(skipped) - 8} more" if len(skipped) > 8 else ""
            line += f", skipped: {listed}{more}"
        return line

    @property
    def representatives(self) -> tuple[str, ...]:
        """The tensors that need a range, in the order of the graph."""
        return tuple(dict.fromkeys(self.tensors.values()))


def place(graph: Graph, floats: Mapping[str, str] | None = None) -> Placement:
    """Plan the int8 part of a prepared graph.

    Args:
        graph: A prepared float graph.
        floats: {node name: reason} of the layers to leave in float.
    """
    left = dict(floats or {})
    why_not: dict[Layer, str] = {}
    axes: dict[str, int] = {}
    layers: list[Layer] = []
    for layer in layers_of(graph):
        turned = axes.setdefault(layer.weight, layer.axis) != layer.axis
        reason = left.get(layer.node) or _obstacle(graph, layer)
        if reason is None and turned:
            reason = "its weight is another layer's, the other way round"
        if reason:
            why_not[layer] = reason
        else:
            layers.append(layer)
    int8 = {layer.node for layer in layers}
    int8 |= {n.name for n in graph.nodes if _supported(graph, n) and n.name not in left}
    _settle(graph, int8)
    merged = {name: act for name in int8 if (act := _mergeable(graph, graph.named[name]))}
    int8 -= set(merged.values())
    return Placement(
        int8=frozenset(int8),
        merged=merged,
        tensors=_share(graph, int8, merged),
        layers=tuple(layers),
        floats=why_not,
    )


def result(graph: Graph, merged: Mapping[str, str], node: onnx.NodeProto) -> str:
    """The tensor that holds the node's quantized result: its own, or its activation's."""
    activation = merged.get(node.name)
    return str((graph.named[activation] if activation else node).output[0])


def data_inputs(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """The inputs that carry activations: no weights, no shapes, no other constants."""
    if node.op_type in MOVES or node.op_type in INT8_WEIGHTED:
        return [str(node.input[0])]
    return [str(name) for name in node.input if name and name not in graph.constants]


def _obstacle(graph: Graph, layer: Layer) -> str | None:
    """Why a weighted layer cannot run in int8; None when it can."""
    if layer.op not in INT8_WEIGHTED:
        return f"ONNX Runtime has no int8 {layer.op}"
    node, weight = graph.named[layer.node], graph.weights(layer.weight)
    facts = attributes(node)
    if layer.op == "Conv" and weight.ndim != 4:
        return f"only two-dimensional convolutions, this has {weight.ndim - 2} dimensions"
    if layer.op == "Gemm" and (
        facts.get("alpha", 1.0) != 1.0 or facts.get("beta", 1.0) != 1.0 or facts.get("transA", 0)
    ):
        return "Gemm with alpha, beta or transA"
    if layer.op == "MatMul" and weight.ndim != 2:
        return "batched weights"
    if weight.dtype != np.float32:
        return f"its weights are {weight.dtype}"
    if not np.isfinite(weight).all():
        return "its weights are not finite"
    bias = graph.constants.get(layer.bias) if layer.bias else None
    if layer.bias and bias is None:
        return "its bias is computed"
    if bias is not None and not per_channel(bias, weight.shape[layer.axis]):
        return "its bias is not one number a channel"
    if layer.input in graph.constants:
        return "its input is constant"
    return None


def _supported(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.domain not in ("", "ai.onnx") or not node.output:
        return False
    facts = attributes(node)
    if node.op_type == "Resize":
        return bool(facts.get("mode", b"nearest") == b"nearest")
    if node.op_type == "Pad":
        fill = graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        return fill is None or not bool(fill.any())
    if node.op_type == "MaxPool" and len(node.output) > 1:
        return False
    if node.op_type == "Gather" and node.input[0] in graph.constants:
        return False
    if node.op_type in ("Add", "Mul", "Concat"):
        return all(name not in graph.constants for name in node.input)
    return node.op_type in MOVES or node.op_type in COMPUTES


def _settle(graph: Graph, int8: set[str]) -> None:
    """Take unweighted nodes out until each of the rest has quantized inputs for free.

    An operator whose input a float node makes would cost a conversion and a rounding, and win
    nothing: it stays float.
    """
    weighted = {name for name in int8 if graph.named[name].op_type in INT8_WEIGHTED}
    changed = True
    while changed:
        changed = False
        available = _available(graph, int8, weighted)
        for name in sorted(int8 - weighted):
            inputs = data_inputs(graph, graph.named[name])
            if not inputs or any(i not in available for i in inputs):
                int8.discard(name)
                changed = True


def _available(graph: Graph, int8: set[str], weighted: set[str]) -> set[str]:
    """Tensors that exist in int8 without an extra conversion."""
    found = {str(graph.named[name].input[0]) for name in weighted}
    for node in graph.nodes:
        if node.name in int8:
            if node.op_type in MOVES and node.input[0] not in found and node.name not in weighted:
                continue
            found.update(node.output)
            activation = _mergeable(graph, node)
            if activation:
                found.update(graph.named[activation].output)
    return found


def _mergeable(graph: Graph, node: onnx.NodeProto) -> str | None:
    """The Relu or Clip after the node that an unsigned quantized output makes redundant."""
    if node.op_type in MOVES or node.op_type in ("Concat", "Sigmoid", "LeakyRelu", "Resize"):
        return None
    activation = graph.sole_reader(node.output[0])
    if activation is None or activation.domain not in ("", "ai.onnx"):
        return None
    if activation.op_type == "Relu":
        return str(activation.name)
    if activation.op_type == "Clip" and activation.input[0] == node.output[0]:
        low, high = clip_limits(graph, activation)
        if low is not None and high is not None and low <= 0.0 <= high:
            return str(activation.name)
    return None


def clip_limits(graph: Graph, node: onnx.NodeProto) -> tuple[float | None, float | None]:
    """(low, high) of a Relu or Clip; infinite where open, None where computed at run time."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    limits: list[float | None] = []
    for position, default in ((1, float("-inf")), (2, float("inf"))):
        name = node.input[position] if len(node.input) > position else ""
        value = graph.constants.get(name) if name else None
        if name and value is None:
            limits.append(None)
        else:
            limits.append(default if value is None else float(value.reshape(-1)[0]))
    return limits[0], limits[1]


def float_fed(graph: Graph, placement: Placement) -> list[Layer]:
    """The int8 layers whose input a float operator makes."""
    made = {name for node in placement.int8 for name in graph.named[node].output}
    made |= {name for node in placement.merged.values() for name in graph.named[node].output}
    known = made | set(graph.input_names)
    return [layer for layer in placement.layers if layer.input not in known]


def useful_limits(graph: Graph, placement: Placement) -> dict[str, tuple[float, float]]:
    """{representative: (low, high)} outside which a value makes no difference to what follows.

    Those of an activation that the tensor's quantization replaces, and those below which the
    activation that alone reads the tensor is flat.
    """
    limits = dict.fromkeys(placement.representatives, (float("-inf"), float("inf")))
    for activation in placement.merged.values():
        node = graph.named[activation]
        low, high = clip_limits(graph, node)
        if node.output[0] in limits and low is not None and high is not None:
            limits[str(node.output[0])] = (low, high)
    sharing = list(placement.tensors.values())
    for name in placement.representatives:
        reader = graph.sole_reader(name)
        if reader is not None and reader.op_type in FLAT_BELOW and sharing.count(name) == 1:
            low, high = limits[name]
            limits[name] = (max(low, FLAT_BELOW[reader.op_type]), high)
    return limits


def _share(graph: Graph, int8: Iterable[str], merged: Mapping[str, str]) -> dict[str, str]:
    """{quantized tensor: representative}, following data-moving nodes back to their source."""
    chosen = set(int8)
    tensors: dict[str, str] = {}
    for node in graph.nodes:
        if node.name not in chosen:
            continue
        inputs = data_inputs(graph, node)
        for name in inputs:
            tensors.setdefault(name, name)
        moves = node.op_type in MOVES or node.op_type == "Resize"
        if (
            not moves
            and node.op_type in ("Gemm", "MatMul")
            and not _read_in_int8(graph, chosen, result(graph, merged, node))
        ):
            continue
        outputs = node.output if moves else [result(graph, merged, node)]
        for name in outputs:
            tensors[name] = tensors[inputs[0]] if moves else name
    return tensors


def _read_in_int8(graph: Graph, int8: set[str], tensor: str) -> bool:
    return any(reader.name in int8 for reader in graph.readers.get(tensor, []))
