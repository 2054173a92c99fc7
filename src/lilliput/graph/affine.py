"""Factors and shifts per channel (batch norms, scales) as part of the weights beside them.

All is computed in float64 and stored in the weight's own type. A weight that one layer alone reads
keeps its name; of one that several share each gets a version of its own, and layers that stay
equal share that again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import Array
from lilliput.graph.model import Graph, attributes

if TYPE_CHECKING:
    from onnx import NodeProto

VERSION = "|"
"""Stands between the name of a shared weight and the number of its version."""


Follows = Callable[["NodeProto | None"], bool]


@dataclass(frozen=True)
class Affine:
    """y = scale · x + shift of the value `data`; both (C,) or (1,) float64."""

    data: str
    scale: Array
    shift: Array


def fold_back(graph: Graph) -> int:
    """Fold affine maps per channel into the Conv, ConvTranspose or Gemm that alone feeds them.

    BatchNormalization, and Mul, Div, Add and Sub of constants: W' = s·W and b' = s·b + t for each
    output channel. Returns how many were folded.
    """
    versions: dict[tuple[str, ...], tuple[str, str]] = {}
    folded: list[NodeProto] = []
    producers, readers = graph.producers, graph.readers
    for node in graph.nodes:
        layer = next((producers[i] for i in node.input if i in producers), None)
        if layer is None or len(readers.get(layer.output[0], ())) != 1:
            continue
        if layer.output[0] in graph.output_names or not _fold_into(graph, layer, node, versions):
            continue
        layer.output[0] = node.output[0]
        producers[node.output[0]] = layer
        folded.append(node)
    graph.drop(folded)
    return len(folded)


def fold_forward(graph: Graph, *, after: Follows | None = None) -> int:
    """Fold each BatchNormalization into the unpadded Conv or the Gemm that alone reads it.

    W' = W·s and b' = b + Σ W·t for each input channel. At a padded border this would be wrong,
    for the padding is of zeros and not of t. `after` says whether a norm may go that follows the
    given node (None: an input of the graph). Returns how many were folded.
    """
    folded: list[NodeProto] = []
    for norm in reversed(graph.nodes):
        layer = graph.sole_reader(norm.output[0]) if norm.op_type == "BatchNormalization" else None
        if layer is None or not (after is None or after(graph.producers.get(norm.input[0]))):
            continue
        affine = _batch_norm(graph, norm)
        moved = None if affine is None else _moved_forward(graph, layer, norm.output[0], affine)
        if moved is None:
            continue
        give_weights(graph, layer, *moved)
        layer.input[0] = norm.input[0]
        # Counted anew, so that the norm before this one finds the layer in its place.
        graph.readers[norm.input[0]] = [
            layer if reader is norm else reader for reader in graph.readers[norm.input[0]]
        ]
        folded.append(norm)
    graph.drop(folded)
    return len(folded)


def scaled(
    weight: Array, layer: NodeProto, *, outs: Array | None = None, ins: Array | None = None
) -> Array:
    """The layer's weight with its output channels times `outs` and its inputs times `ins`.

    float64, of the weight's shape; `outs` is (O,) and `ins` (I,), over all groups. The layer is
    a Conv, ConvTranspose, Gemm or MatMul.
    """
    groups = int(attributes(layer).get("group", 1))
    first, second, *kernel = weight.shape
    wide = weight.astype(np.float64).reshape(groups, first // groups, second, *kernel)
    rows, columns = (outs, ins) if outputs_first(layer) else (ins, outs)
    ones = [1] * len(kernel)
    if rows is not None:
        wide = wide * rows.reshape(groups, -1, 1, *ones)
    if columns is not None:
        wide = wide * columns.reshape(groups, 1, -1, *ones)
    return np.asarray(wide.reshape(weight.shape))


def outputs_first(layer: NodeProto) -> bool:
    """Whether the first axis of the layer's weight is that of its output channels."""
    if layer.op_type == "Gemm":
        return bool(attributes(layer).get("transB", 0))
    return str(layer.op_type) == "Conv"


def channels_of(layer: NodeProto, weight: Array) -> tuple[int, int]:
    """(output channels, input channels) of the layer, over all groups."""
    groups = int(attributes(layer).get("group", 1))
    if outputs_first(layer):
        return weight.shape[0], weight.shape[1] * groups
    return weight.shape[1] * groups, weight.shape[0]


def bias_values(graph: Graph, layer: NodeProto, channels: int) -> Array | None:
    """The layer's bias as (channels,) float64, zeros when it has none; None if not constant."""
    if len(layer.input) < 3 or not layer.input[2]:
        return np.zeros(channels)
    value = graph.constants.get(layer.input[2])
    # A bias of Gemm may also be given per example, as (N, 1).
    if value is None or value.size not in (1, channels) or value.size != (value.shape or (1,))[-1]:
        return None
    return np.broadcast_to(value.reshape(-1).astype(np.float64), (channels,))


def give_weights(graph: Graph, layer: NodeProto, weight: Array, bias: Array) -> tuple[str, str]:
    """Give the layer these weights, in its own type; returns the names that they got."""
    old = [*layer.input[1:], ""][:2]
    kind = graph.constants[old[0]].dtype
    weight_name = _own_name(graph, old[0])
    graph.constants[weight_name] = weight.astype(kind)
    stem = weight_name.removesuffix(".weight")
    bias_name = _own_name(graph, old[1]) if old[1] else graph.fresh(f"{stem}.bias")
    graph.constants[bias_name] = bias.astype(kind)
    del layer.input[1:]
    layer.input.extend([weight_name, bias_name])
    return weight_name, bias_name


def padding_of(conv: NodeProto, rank: int) -> list[int] | None:
    """The starts, then the ends, of a Conv's padding; None where the runtime is to choose."""
    settings = attributes(conv)
    mode = settings.get("auto_pad", b"NOTSET")
    if mode in (b"", b"NOTSET"):
        return list(settings.get("pads", [0] * 2 * rank))
    return [0] * 2 * rank if mode == b"VALID" else None


def _own_name(graph: Graph, name: str) -> str:
    """The name of a constant, if one layer alone reads it, else that of a new version."""
    shared = len(graph.readers.get(name, ())) > 1 or name in graph.output_names
    if not shared and VERSION not in name:
        return name
    number = 0
    while f"{name}{VERSION}{number}" in graph.constants:
        number += 1
    return f"{name}{VERSION}{number}"


def _fold_into(
    graph: Graph,
    layer: NodeProto,
    node: NodeProto,
    versions: dict[tuple[str, ...], tuple[str, str]],
) -> bool:
    if layer.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(layer.input) < 2:
        return False
    weight = graph.constants.get(layer.input[1])
    if weight is None or not _plain(layer):
        return False
    affine = _affine(graph, node, layer.output[0], weight.ndim)
    channels = channels_of(layer, weight)[0]
    bias = bias_values(graph, layer, channels)
    if affine is None or bias is None:
        return False
    if not {affine.scale.size, affine.shift.size} <= {1, channels}:
        return False
    own = (layer.op_type, *layer.input[1:], node.op_type, *node.input[1:])
    key = tuple(name for name in own if name != affine.data)
    if key in versions:
        del layer.input[1:]
        layer.input.extend(versions[key])
        return True
    scale = np.broadcast_to(affine.scale, (channels,))
    names = give_weights(
        graph, layer, scaled(weight, layer, outs=scale), bias * scale + affine.shift
    )
    if VERSION in names[0]:
        versions[key] = names
    return True


def _moved_forward(
    graph: Graph, layer: NodeProto, data: str, affine: Affine
) -> tuple[Array, Array] | None:
    """(weight, bias) of the layer that takes what the map would have been given."""
    if layer.op_type not in ("Conv", "Gemm") or layer.input[0] != data or not _plain(layer):
        return None
    weight = graph.constants.get(layer.input[1])
    if weight is None or attributes(layer).get("transA", 0):
        return None
    if layer.op_type == "Conv" and padding_of(layer, weight.ndim - 2) != [0] * 2 * (
        weight.ndim - 2
    ):
        return None
    outputs, inputs = channels_of(layer, weight)
    bias = bias_values(graph, layer, outputs)
    if bias is None or affine.scale.size != inputs:
        return None
    added = scaled(weight, layer, ins=affine.shift)
    others = tuple(range(1, added.ndim)) if outputs_first(layer) else (0,)
    return scaled(weight, layer, ins=affine.scale), bias + added.sum(others)


def _plain(layer: NodeProto) -> bool:
    settings = attributes(layer)
    return bool(settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0)


def _affine(graph: Graph, node: NodeProto, data: str, rank: int) -> Affine | None:
    """The node as an affine map of `data`, a layer's output of `rank` axes; None if it is none."""
    if node.op_type == "BatchNormalization":
        return _batch_norm(graph, node)
    if node.op_type not in ("Mul", "Add", "Sub", "Div") or len(node.input) != 2:
        return None
    if node.input[0] != data and node.op_type in ("Sub", "Div"):
        return None
    other = node.input[1] if node.input[0] == data else node.input[0]
    value = _per_channel(graph.constants.get(other), rank)
    if value is None or not np.isfinite(value).all():
        return None
    if node.op_type in ("Add", "Sub"):
        return Affine(data, np.ones(1), value if node.op_type == "Add" else -value)
    if node.op_type == "Div" and not value.all():
        return None
    return Affine(data, value if node.op_type == "Mul" else 1.0 / value, np.zeros(1))


def _batch_norm(graph: Graph, norm: NodeProto) -> Affine | None:
    """A BatchNormalization of constant statistics."""
    values = [graph.constants.get(name) for name in norm.input[1:5]]
    settings = attributes(norm)
    if any(norm.output[1:]) or settings.get("training_mode", 0) or any(v is None for v in values):
        return None
    gamma, beta, mean, var = (np.asarray(value, np.float64) for value in values)
    scale = gamma / np.sqrt(var + settings.get("epsilon", 1e-5))
    return Affine(norm.input[0], scale, beta - mean * scale) if np.isfinite(scale).all() else None


def _per_channel(value: Array | None, rank: int) -> Array | None:
    """The constant as (C,) or (1,), if it varies along axis 1 of a tensor of `rank` axes only."""
    if value is None or not np.issubdtype(value.dtype, np.floating) or value.ndim > rank:
        return None
    behind = rank - 2
    if value.size == 1 or (value.ndim > behind and value.size == value.shape[-1 - behind]):
        return value.reshape(-1).astype(np.float64)
    return None
