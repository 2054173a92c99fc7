"""The weighted layers of a float graph, as the int8 engine and its user name them.

Names follow the torch module paths, so that a pattern such as `layer1.*` means what the user
means by it, whichever exporter wrote the file.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import Array
from lilliput.errors import LilliputError, Mistakes, nearest
from lilliput.graph import Graph, attributes
from lilliput.graph.affine import outputs_first
from lilliput.graph.model import STANDARD

if TYPE_CHECKING:
    from onnx import NodeProto

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """One node with trained weights.

    `node` is the node's unique name, `path` the torch module path where it can be told.
    `weight` and `bias` name initializers (`bias` is "" when there is none). `axis` is the weight's
    output-channel axis. `depthwise` is one input channel per group with as many groups as inputs.
    """

    node: str
    op: str
    path: str
    input: str
    weight: str
    bias: str
    output: str
    axis: int
    groups: int
    depthwise: bool


def layers_of(graph: Graph) -> list[Layer]:
    """The nodes with constant weights, in the order they run."""
    return [layer for node in graph.nodes if (layer := _layer(graph, node))]


def by_weight(layers: Iterable[Layer]) -> dict[str, list[Layer]]:
    """{weight: the layers that use it}, in the order of the layers."""
    users: dict[str, list[Layer]] = {}
    for layer in layers:
        users.setdefault(layer.weight, []).append(layer)
    return users


def per_channel(bias: Array, channels: int) -> bool:
    """Whether the bias adds one number to each channel: a Gemm's may be any broadcast."""
    return bias.size == 1 or (bias.size == channels and bias.shape[-1] == channels)


def module_path(node_name: str) -> str:
    """`/layer1/layer1.0/conv1/Conv` → `layer1.0.conv1`; a name of another kind stays as it is."""
    if not node_name.startswith("/"):
        return node_name
    path: list[str] = []
    for part in node_name.split("/")[1:-1]:
        if path and part.startswith(path[-1] + "."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path) or node_name


def match_layers(
    layers: Sequence[Layer], patterns: Iterable[str], *, setting: str = "exclude"
) -> frozenset[str]:
    """Names of the nodes whose module path, node name or weight name matches any glob.

    Raises:
        LilliputError: (all at once) patterns that match nothing, with the nearest names.
    """
    chosen: set[str] = set()
    unmatched: list[LilliputError] = []
    for pattern in patterns:
        hits = {
            layer.node
            for layer in layers
            if any(fnmatch.fnmatchcase(name, pattern) for name in _names(layer))
        }
        if not hits:
            unmatched.append(
                LilliputError(
                    f"{setting} pattern {pattern!r} matches no layer",
                    hint=nearest(pattern, [layer.path for layer in layers]),
                )
            )
        chosen |= hits
    if len(unmatched) == 1:
        raise unmatched[0]
    if unmatched:
        raise Mistakes(unmatched)
    return frozenset(chosen)


def _layer(graph: Graph, node: NodeProto) -> Layer | None:
    if node.op_type not in WEIGHTED or node.domain not in STANDARD or len(node.input) < 2:
        return None
    weight = graph.constants.get(node.input[1])
    if weight is None or not np.issubdtype(weight.dtype, np.floating) or weight.ndim < 2:
        return None
    groups = int(attributes(node).get("group", 1))
    axis = weight.ndim - 1 if node.op_type == "MatMul" else 1 - outputs_first(node)
    bias = node.input[2] if len(node.input) > 2 else ""
    path = module_path(node.name)
    if path == node.name and node.input[1].endswith(".weight"):
        path = node.input[1].removesuffix(".weight")
    return Layer(
        node=node.name,
        op=node.op_type,
        path=path,
        input=node.input[0],
        weight=node.input[1],
        bias=bias,
        output=node.output[0],
        axis=axis,
        groups=groups,
        depthwise=node.op_type == "Conv" and groups > 1 and weight.shape[1] == 1,
    )


def _names(layer: Layer) -> tuple[str, ...]:
    return (layer.path, layer.node, layer.weight, layer.weight.removesuffix(".weight"))
