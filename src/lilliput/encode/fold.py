"""Exact simplifications of a float graph before it is quantized.

Constants are computed, identities go, batch norms and per-channel scales disappear into the
weights beside them, and two linear convolutions in a row become one where that is less work.
Nothing here changes what the graph computes but for float rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lilliput.encode.graph import Array, Graph, attributes, upgrade_opset
from lilliput.encode.simplify import GELU_OPSET, has_gelu, simplify
from lilliput.onnx_io import strip

if TYPE_CHECKING:
    import onnx

MAX_FOLDED_BYTES = 1 << 20
"""A computed constant may not be larger than this: folding must never blow a file up."""


FOLDED_ACROSS = frozenset(("Relu", "LeakyRelu", "Clip", "MaxPool", "AveragePool", "Add", "Concat"))
"""What may stand before a batch norm that goes into the layer after it."""


@dataclass(frozen=True)
class Prepared:
    """A simplified float model and the sentences that say what was done to it."""

    model: onnx.ModelProto
    notes: tuple[str, ...]


def prepare(model: onnx.ModelProto) -> Prepared:
    """A float model ready to be quantized: opset lifted, folded, stripped of what nobody reads.

    Input and output names, dynamic shapes and the file's own metadata are kept.

    Raises:
        Refused: the opset is too old and cannot be lifted.
    """
    from onnx import inliner

    notes: list[str] = []
    lifted = upgrade_opset(model)
    graph = Graph(inliner.inline_local_functions(lifted) if lifted.functions else lifted)
    before = Graph(model).opset
    if graph.opset != before:
        notes.append(f"opset {before} lifted to {graph.opset}: int8 per channel needs it")
    fold_constants(graph)
    drop_identities(graph)
    if has_gelu(graph) and graph.opset < GELU_OPSET:
        graph = Graph(upgrade_opset(graph.model, least=GELU_OPSET))
        notes.append(f"opset lifted to {GELU_OPSET}: its Gelu is one operator instead of five")
    simplify(graph)
    folded = fold_affine(graph)
    if folded:
        notes.append(f"{folded} batch norms and scales folded into the weights beside them")
    merged = merge_convolutions(graph)
    if merged:
        notes.append(f"{merged} convolutions merged into the linear one before them")
    graph.prune()
    strip(graph.model)
    return Prepared(graph.model, tuple(notes))


def fold_constants(graph: Graph) -> None:
    """Turn Constant nodes, and nodes that read constants only, into initializers."""
    for node in list(graph.model.graph.node):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or len(node.output) != 1:
            continue
        if node.output[0] in graph.pinned or any(
            name and name not in graph.initializers for name in node.input
        ):
            continue
        if any(a.HasField("g") for a in node.attribute) or node.op_type.startswith("Random"):
            continue
        value = _computed(graph, node)
        if value is None or value.nbytes > MAX_FOLDED_BYTES:
            continue
        graph.set_constant(node.output[0], value)
        graph.model.graph.node.remove(node)
    graph.reindex()


def drop_identities(graph: Graph) -> None:
    """Take out Identity and (inference) Dropout nodes, also those that only rename weights."""
    for node in list(graph.model.graph.node):
        masked = any(name in graph.consumers or name in graph.pinned for name in node.output[1:])
        if node.op_type == "Identity" or (node.op_type == "Dropout" and not masked):
            graph.bypass(node)


def fold_affine(graph: Graph) -> int:
    """Fold BatchNormalization, Mul and Add by per-channel constants into Conv, Gemm and co.

    First into the layer before; where that is barred (an activation stands between) into the
    layer after, if it has no padding that the shift would have to fill. Returns how many.
    """
    count = 0
    changed = True
    while changed:
        changed = False
        for node in list(graph.model.graph.node):
            affine = _affine(graph, node)
            if affine is not None and (
                _fold_back(graph, node, *affine) or _fold_forward(graph, node, *affine)
            ):
                count, changed = count + 1, True
    return count


def merge_convolutions(graph: Graph) -> int:
    """Merge Conv → 1x1 Conv (nothing between, ungrouped) where the product is less work.

    The second convolution must not be padded or strided. Returns how many were merged.
    """
    count = 0
    for second in list(graph.model.graph.node):
        first = graph.producers.get(second.input[0]) if second.op_type == "Conv" else None
        if first is None or first.op_type != "Conv" or not _pointwise(graph, second):
            continue
        if graph.sole_consumer(first.output[0]) is None:
            continue
        a, b = graph.constant(first.input[1]), graph.constant(second.input[1])
        plain = attributes(first).get("group", 1) == 1 and attributes(second).get("group", 1) == 1
        if a is None or b is None or not plain or b.shape[0] > a.shape[0]:
            continue
        mix = b[:, :, 0, 0].astype(np.float64)
        bias_a, bias_b = _bias(graph, first, a.shape[0]), _bias(graph, second, b.shape[0])
        if bias_a is None or bias_b is None:
            continue
        weight = np.einsum("om,mikl->oikl", mix, a.astype(np.float64))
        _give(graph, first, weight.astype(a.dtype), (mix @ bias_a + bias_b).astype(a.dtype))
        second.input[0] = first.output[0]
        graph.reindex()
        if graph.bypass(second):
            count += 1
    return count


def _computed(graph: Graph, node: onnx.NodeProto) -> Array | None:
    """The node's value from constants; None where it cannot be computed cheaply."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Constant":
        value = attributes(node).get("value")
        if value is not None:
            return np.asarray(onnx.numpy_helper.to_array(value))
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        # The size is in the values: look before computing, a bad file could ask for terabytes.
        sizes = graph.constant(node.input[-1])
        if sizes is None or float(np.prod(np.abs(sizes.astype(np.float64)))) > MAX_FOLDED_BYTES / 8:
            return None
    feeds = {name: graph.constant(name) for name in node.input if name}
    inputs = [onnx.helper.make_empty_tensor_value_info(name) for name in feeds]
    outputs = [onnx.helper.make_empty_tensor_value_info(node.output[0])]
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "constant", inputs, outputs),
        opset_imports=graph.model.opset_import,
    )
    try:
        return np.asarray(ReferenceEvaluator(alone).run(None, feeds)[0])
    except Exception:  # noqa: BLE001  # whatever the evaluator lacks stays a node, as it was
        return None


def _affine(graph: Graph, node: onnx.NodeProto) -> tuple[Array, Array] | None:
    """(scale, shift), each (C,) or (1,) float64, if the node is a per-channel affine map."""
    if node.op_type == "BatchNormalization":
        values = [graph.constant(name) for name in node.input[1:5]]
        if any(v is None for v in values) or attributes(node).get("training_mode", 0):
            return None
        gamma, beta, mean, var = (np.asarray(v, np.float64) for v in values)
        scale = gamma / np.sqrt(var + attributes(node).get("epsilon", 1e-5))
        return scale, beta - mean * scale
    if node.op_type not in ("Mul", "Add", "Sub", "Div") or len(node.input) != 2:
        return None
    side = next((i for i in (1, 0) if node.input[i] in graph.initializers), None)
    if side is None or (side == 0 and node.op_type in ("Sub", "Div")):
        return None
    value = graph.weights(node.input[side])
    per_channel = _per_channel(graph, node.input[1 - side], value)
    if per_channel is None:
        return None
    if side == 0:
        # The data always comes first, so that the rewiring below need not ask.
        node.input[0], node.input[1] = node.input[1], node.input[0]
    one, zero = np.ones_like(per_channel), np.zeros_like(per_channel)
    return {
        "Mul": (per_channel, zero),
        "Div": (1.0 / np.where(per_channel == 0, np.nan, per_channel), zero),
        "Add": (one, per_channel),
        "Sub": (one, -per_channel),
    }[node.op_type]


def _per_channel(graph: Graph, data: str, value: Array) -> Array | None:
    """The constant as (C,) or (1,), if it varies along the channel axis of `data` only."""
    if not np.issubdtype(value.dtype, np.floating):
        return None
    if value.size == 1:
        return value.reshape(1).astype(np.float64)
    maker = graph.producers.get(data)
    trailing = 0 if maker is not None and maker.op_type in ("Gemm", "MatMul") else 2
    shape = value.shape if value.ndim > trailing else ()
    if shape and value.size == shape[-1 - trailing]:
        return value.reshape(-1).astype(np.float64)
    return None


def _fold_back(graph: Graph, node: onnx.NodeProto, scale: Array, shift: Array) -> bool:
    layer = graph.producers.get(node.input[0])
    if layer is None or layer.op_type not in ("Conv", "ConvTranspose", "Gemm"):
        return False
    if graph.sole_consumer(layer.output[0]) is not node or not np.isfinite(scale).all():
        return False
    weight = graph.constant(layer.input[1])
    facts = attributes(layer)
    if weight is None or (layer.op_type == "Gemm" and not _plain_gemm(facts)):
        return False
    groups = int(facts.get("group", 1))
    if layer.op_type == "ConvTranspose" and groups > 1:
        return False
    axis = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if facts.get("transB", 0) else 1}
    along = axis[layer.op_type]
    channels = weight.shape[along]
    bias = _bias(graph, layer, channels)
    if bias is None or scale.size not in (1, channels):
        return False
    spread = np.broadcast_to(scale, (channels,))
    shape = [1] * weight.ndim
    shape[along] = channels
    scaled = weight.astype(np.float64) * spread.reshape(shape)
    _give(graph, layer, scaled.astype(weight.dtype), (bias * spread + shift).astype(weight.dtype))
    return graph.bypass(node)


def _fold_forward(graph: Graph, node: onnx.NodeProto, scale: Array, shift: Array) -> bool:
    layer = graph.sole_consumer(node.output[0])
    if node.op_type != "BatchNormalization" or layer is None or layer.op_type != "Conv":
        return False
    before = graph.producers.get(node.input[0])
    if before is not None and before.op_type not in FOLDED_ACROSS:
        # A float activation (GELU, ...) leaves channels uneven and cannot be equalized; the norm,
        # which runs in float beside it at little cost, evens them out for the 8 bits after it.
        return False
    if not np.isfinite(scale).all() or layer.input[0] != node.output[0]:
        return False
    if any(attributes(layer).get("pads", ())) or attributes(layer).get("auto_pad", b"") not in (
        b"",
        b"NOTSET",
        b"VALID",
    ):
        return False
    weight = graph.constant(layer.input[1])
    groups = int(attributes(layer).get("group", 1))
    if weight is None or scale.size != weight.shape[1] * groups:
        return False
    outs = weight.shape[0]
    bias = _bias(graph, layer, outs)
    if bias is None:
        return False
    # Output channel o reads the input channels of its group: one row of scales each.
    rows = np.repeat(np.arange(groups), outs // groups)
    per_out = scale.reshape(groups, -1)[rows]
    moved = shift.reshape(groups, -1)[rows]
    taps = weight.astype(np.float64)
    added = (taps.reshape(outs, weight.shape[1], -1).sum(-1) * moved).sum(1)
    shape = (outs, weight.shape[1], *([1] * (weight.ndim - 2)))
    scaled = taps * per_out.reshape(shape)
    _give(graph, layer, scaled.astype(weight.dtype), (bias + added).astype(weight.dtype))
    return graph.bypass(node)


def _give(graph: Graph, layer: onnx.NodeProto, weight: Array, bias: Array) -> None:
    """Give the layer these weights, under new names where others use the old ones."""
    for position, value in ((1, weight), (2, bias)):
        old = layer.input[position] if len(layer.input) > position else ""
        shared = old and len(graph.consumers.get(old, [])) > 1
        name = old
        if not old or shared:
            stem = old or layer.input[1].removesuffix(".weight") + ".bias"
            name = graph.fresh(stem)
        graph.set_constant(name, value)
        if len(layer.input) > position:
            layer.input[position] = name
        else:
            layer.input.append(name)
    graph.reindex()


def _bias(graph: Graph, layer: onnx.NodeProto, channels: int) -> Array | None:
    """The layer's bias as (channels,) float64, zeros when it has none; None if not constant."""
    if len(layer.input) < 3 or not layer.input[2]:
        return np.zeros(channels)
    value = graph.constant(layer.input[2])
    if value is None or value.size not in (1, channels):
        return None
    return np.broadcast_to(value.reshape(-1).astype(np.float64), (channels,))


def _plain_gemm(facts: dict[str, Any]) -> bool:
    scaled = facts.get("alpha", 1.0) != 1.0 or facts.get("beta", 1.0) != 1.0
    return not scaled and not facts.get("transA", 0)


def _pointwise(graph: Graph, node: onnx.NodeProto) -> bool:
    weight = graph.constant(node.input[1])
    facts = attributes(node)
    return (
        weight is not None
        and weight.ndim == 4
        and weight.shape[2:] == (1, 1)
        and not any(facts.get("pads", ()))
        and set(facts.get("strides", (1,))) == {1}
    )
