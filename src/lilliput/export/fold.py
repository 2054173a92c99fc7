"""What can be computed once, at export: constant subgraphs and batch normalisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, helper

from lilliput.data.dataset import Array
from lilliput.export.graph import Graph, attributes
from lilliput.runtimes.quiet import quiet_telemetry

GROWTH_BYTES = 1 << 16
"""A constant may grow by this much when it is computed ahead; `Expand` of a scalar may not."""

FOLDED = "|"
"""Stands between the name of a weight and the number of its folded version, until names are set."""

NEVER_FOLDED = {"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan"}


def fold_constants(graph: Graph) -> None:
    """Compute every node whose inputs are all constant, unless the result is much larger."""
    known = set(graph.constants)
    ready: list[NodeProto] = []
    for node in graph.nodes:
        if _foldable(node, known):
            ready.append(node)
            known.update(node.output)
    if not ready:
        return
    values = _evaluate(graph, ready)
    folded = []
    for node in ready:
        if all(n in graph.constants or not n for n in node.input) and _small(graph, node, values):
            graph.constants |= {name: values[name] for name in node.output if name}
            folded.append(node)
    graph.drop(folded)


def fold_batchnorm(graph: Graph) -> int:
    """Fold each BatchNormalization into the Conv, ConvTranspose or Gemm that alone feeds it.

    With s = gamma / sqrt(var + eps): W' = s·W and b' = s·(b - mean) + beta per output channel,
    computed in float64. Returns how many were folded. A convolution that runs twice with the same
    normalisation keeps one weight.
    """
    producers, users = graph.producers(), graph.users()
    made: dict[tuple[str, ...], tuple[str, str]] = {}
    folded = []
    for norm in graph.nodes:
        if norm.op_type != "BatchNormalization" or any(norm.output[1:]):
            continue
        layer = producers.get(norm.input[0])
        if layer is None or not graph.feeds_only(layer.output[0], norm, users):
            continue
        names = _fold_one(graph, layer, norm, made)
        if names is None:
            continue
        del layer.input[1:]
        layer.input.extend(names)
        layer.output[0] = norm.output[0]
        producers[norm.output[0]] = layer
        folded.append(norm)
    graph.drop(folded)
    return len(folded)


def _fold_one(
    graph: Graph, layer: NodeProto, norm: NodeProto, made: dict[tuple[str, ...], tuple[str, str]]
) -> tuple[str, str] | None:
    scaled = _SCALERS.get(layer.op_type)
    parameters = (*layer.input[1:], *norm.input[1:])
    if scaled is None or not all(name in graph.constants for name in parameters):
        return None
    key = (layer.op_type, *parameters)
    if key in made:
        return made[key]
    weight = graph.constants[layer.input[1]].astype(np.float64)
    gamma, beta, mean, var = (graph.constants[n].astype(np.float64) for n in norm.input[1:5])
    bias = graph.constants[layer.input[2]] if len(layer.input) > 2 else np.zeros(1)
    factor = gamma / np.sqrt(var + attributes(norm).get("epsilon", 1e-5))
    new_weight = scaled(weight, factor, layer)
    if new_weight is None:
        return None
    shift = (bias.astype(np.float64) - mean) * factor + beta
    base = f"{layer.input[1]}{FOLDED}{len(made)}"
    names = (base, f"{base}.bias")
    graph.constants[names[0]] = new_weight.astype(np.float32)
    graph.constants[names[1]] = shift.astype(np.float32)
    made[key] = names
    return names


def _scale_conv(weight: Array, factor: Array, _: NodeProto) -> Array | None:
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


def _scale_conv_transpose(weight: Array, factor: Array, layer: NodeProto) -> Array | None:
    group = attributes(layer).get("group", 1)
    rows, columns, *kernel = weight.shape
    split = weight.reshape(group, rows // group, columns, *kernel)
    scaled = split * factor.reshape(group, 1, columns, *[1] * len(kernel))
    return np.asarray(scaled.reshape(weight.shape))


def _scale_gemm(weight: Array, factor: Array, layer: NodeProto) -> Array | None:
    settings = attributes(layer)
    if settings.get("alpha", 1.0) != 1.0 or settings.get("beta", 1.0) != 1.0:
        return None
    return weight * (factor[:, None] if settings.get("transB", 0) else factor[None, :])


_SCALERS: dict[str, Callable[[Array, Array, NodeProto], Array | None]] = {
    "Conv": _scale_conv,
    "ConvTranspose": _scale_conv_transpose,
    "Gemm": _scale_gemm,
}


def _foldable(node: NodeProto, known: set[str]) -> bool:
    if node.op_type in NEVER_FOLDED or node.op_type.startswith("Random") or node.domain:
        return False
    return all(name in known or not name for name in node.input)


def _small(graph: Graph, node: NodeProto, values: dict[str, Array]) -> bool:
    before = sum(graph.constants[n].nbytes for n in node.input if n)
    after = sum(values[n].nbytes for n in node.output if n)
    return after <= before + GROWTH_BYTES


def _evaluate(graph: Graph, nodes: list[NodeProto]) -> dict[str, Array]:
    quiet_telemetry()
    import onnxruntime as ort

    outputs = [name for node in nodes for name in node.output if name]
    used = {name for node in nodes for name in node.input}
    part = Graph(
        nodes=nodes,
        constants={k: v for k, v in graph.constants.items() if k in used},
        inputs=[],
        outputs=[helper.make_empty_tensor_value_info(name) for name in outputs],
        opset=graph.opset,
        ir_version=graph.ir_version,
    )
    model = part.model()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(outputs, session.run(outputs, {}), strict=True))
