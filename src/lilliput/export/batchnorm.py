"""Batch normalisation in eval mode is a factor and a shift per channel: part of a neighbour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from lilliput.data.dataset import Array
from lilliput.export.graph import Graph, attributes

FOLDED = "|"
"""Stands between the name of a weight and the number of its folded version, until names are set."""


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


def fold_batchnorm_forward(graph: Graph) -> int:
    """Fold each BatchNormalization into the unpadded Conv or the Gemm that alone reads it.

    With y = s·x + t per input channel: W' = W·s and b' = b + Σ W·t. At a padded border this would
    be wrong, for the padding is of zeros and not of t. Returns how many were folded.
    """
    users = graph.users()
    folded: list[NodeProto] = []
    for norm in graph.nodes:
        if norm.op_type != "BatchNormalization" or any(norm.output[1:]):
            continue
        readers = users.get(norm.output[0], [])
        if len(readers) != 1 or norm.output[0] in graph.output_names:
            continue
        if _fold_into_reader(graph, norm, readers[0], len(folded)):
            folded.append(norm)
    graph.drop(folded)
    return len(folded)


def _fold_into_reader(graph: Graph, norm: NodeProto, layer: NodeProto, number: int) -> bool:
    shifted = _SHIFTERS.get(layer.op_type)
    names = (*layer.input[1:], *norm.input[1:])
    if shifted is None or not all(name in graph.constants for name in names):
        return False
    weight = graph.constants[layer.input[1]].astype(np.float64)
    found = shifted(weight, *_affine(graph, norm), layer)
    if found is None:
        return False
    new_weight, added = found
    bias = graph.constants[layer.input[2]] if len(layer.input) > 2 else np.zeros(1)
    name = f"{layer.input[1]}{FOLDED}forward{number}"
    graph.constants[name] = new_weight.astype(np.float32)
    graph.constants[f"{name}.bias"] = (bias + added).astype(np.float32)
    del layer.input[:]
    layer.input.extend([norm.input[0], name, f"{name}.bias"])
    return True


Shifted = tuple[Array, Array] | None
"""The weight times s, and what t adds to each output channel; None where it cannot be done."""


def _shift_conv(weight: Array, factor: Array, shift: Array, layer: NodeProto) -> Shifted:
    settings = attributes(layer)
    if any(settings.get("pads", [0])) or settings.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    outputs, width, *kernel = weight.shape
    # Each output channel reads the input channels of its own group.
    group = np.arange(outputs) // (outputs // settings.get("group", 1))
    reads = group[:, None] * width + np.arange(width)
    shape = (*reads.shape, *[1] * len(kernel))
    added = weight * shift[reads].reshape(shape)
    return weight * factor[reads].reshape(shape), added.reshape(outputs, -1).sum(1)


def _shift_gemm(weight: Array, factor: Array, shift: Array, layer: NodeProto) -> Shifted:
    settings = attributes(layer)
    plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0
    if not plain or settings.get("transA", 0) or not settings.get("transB", 0):
        return None
    return weight * factor, weight @ shift


_SHIFTERS: dict[str, Callable[[Array, Array, Array, NodeProto], Shifted]] = {
    "Conv": _shift_conv,
    "Gemm": _shift_gemm,
}


def _affine(graph: Graph, norm: NodeProto) -> tuple[Array, Array]:
    """(s, t) of a BatchNormalization as y = s·x + t, each (C,), float64."""
    gamma, beta, mean, var = (graph.constants[n].astype(np.float64) for n in norm.input[1:5])
    factor = gamma / np.sqrt(var + attributes(norm).get("epsilon", 1e-5))
    return factor, beta - mean * factor


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
    bias = graph.constants[layer.input[2]] if len(layer.input) > 2 else np.zeros(1)
    factor, offset = _affine(graph, norm)
    new_weight = scaled(weight, factor, layer)
    if new_weight is None:
        return None
    shift = bias.astype(np.float64) * factor + offset
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
