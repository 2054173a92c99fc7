"""A float graph made ready to be quantized, without a change to what it computes.

What any graph gains from is in `lilliput.graph`; here is what int8 asks for besides: an opset
with scales per channel, one operator where quantizing would part five, and no batch norm moved to
where it would leave channels uneven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lilliput.encode.simplify import GELU_OPSET, fuse_gelus, has_gelu, pool_means
from lilliput.errors import Refused
from lilliput.graph import Graph, attributes
from lilliput.graph.affine import bias_values, give_weights, padding_of
from lilliput.graph.model import opset_of
from lilliput.graph.tidy import tidy
from lilliput.onnx_io import strip

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

PER_CHANNEL_OPSET = 13
"""The first opset whose QuantizeLinear takes one scale per channel; below it per-channel scales
are dropped without a word by other tools."""

FOLDED_ACROSS = frozenset(("Relu", "LeakyRelu", "Clip", "MaxPool", "AveragePool", "Add", "Concat"))
"""What may stand before a batch norm that goes into the layer after it."""


@dataclass(frozen=True)
class Prepared:
    """A simplified float model and the sentences that say what was done to it."""

    model: ModelProto
    notes: tuple[str, ...]


def prepare(model: ModelProto) -> Prepared:
    """A float model ready to be quantized: opset lifted, folded, stripped of what nobody reads.

    Input and output names, dynamic shapes and the file's own metadata are kept.

    Raises:
        Refused: the opset is too old and cannot be lifted.
    """
    from onnx import inliner

    notes: list[str] = []
    before, lifted = opset_of(model), upgrade_opset(model)
    graph = Graph.of(inliner.inline_local_functions(lifted) if lifted.functions else lifted)
    if graph.opset != before:
        notes.append(f"opset {before} lifted to {graph.opset}: int8 per channel needs it")
    folded = tidy(graph, norms_after=_needs_no_norm)
    if has_gelu(graph) and graph.opset < GELU_OPSET:
        graph = Graph.of(upgrade_opset(graph.model(), least=GELU_OPSET))
        notes.append(f"opset lifted to {GELU_OPSET}: its Gelu is one operator instead of five")
    if graph.opset >= GELU_OPSET:
        fuse_gelus(graph)
    pool_means(graph)
    if folded:
        notes.append(f"{folded} batch norms and scales folded into the weights beside them")
    merged = merge_convolutions(graph)
    if merged:
        notes.append(f"{merged} convolutions merged into the linear one before them")
    ready = graph.model()
    strip(ready)
    return Prepared(ready, tuple(notes))


def upgrade_opset(model: ModelProto, *, least: int = PER_CHANNEL_OPSET) -> ModelProto:
    """The model at opset `least` or above (itself when it is there already).

    Raises:
        Refused: the converter cannot lift one of the model's operators.
    """
    from onnx import version_converter

    have = opset_of(model)
    if have >= least:
        return model
    try:
        lifted: ModelProto = version_converter.convert_version(model, least)
    except Exception as error:  # the converter raises bare RuntimeErrors and more
        raise Refused(
            f"the file is at opset {have}, per-channel int8 needs {least}, and onnx cannot "
            f"convert it ({error})",
            hint=f"export the network again at opset {least} or above",
        ) from error
    return lifted


def merge_convolutions(graph: Graph) -> int:
    """Merge Conv → 1x1 Conv (nothing between, ungrouped) where the product is less work.

    The second convolution must not be padded or strided. Returns how many were merged.
    """
    merged = []
    for second in graph.nodes:
        first = graph.producers.get(second.input[0]) if second.op_type == "Conv" else None
        if first is None or first.op_type != "Conv" or not _pointwise(graph, second):
            continue
        if graph.sole_reader(first.output[0]) is None:
            continue
        a, b = (graph.constants.get(node.input[1]) for node in (first, second))
        plain = all(attributes(node).get("group", 1) == 1 for node in (first, second))
        if a is None or b is None or not plain or b.shape[0] > a.shape[0]:
            continue
        mix = b[:, :, 0, 0].astype(np.float64)
        bias_a, bias_b = (bias_values(graph, n, len(w)) for n, w in ((first, a), (second, b)))
        if bias_a is None or bias_b is None:
            continue
        weight = np.einsum("om,mikl->oikl", mix, a.astype(np.float64))
        give_weights(graph, first, weight, mix @ bias_a + bias_b)
        first.output[0] = second.output[0]
        graph.producers[second.output[0]] = first
        merged.append(second)
    graph.drop(merged)
    return len(merged)


def _needs_no_norm(before: NodeProto | None) -> bool:
    """Whether a batch norm after this node may go into the layer behind it.

    A float activation (GELU, ...) leaves channels uneven and cannot be equalized; the norm, which
    runs in float beside it at little cost, evens them out for the 8 bits after it.
    """
    return before is None or before.op_type in FOLDED_ACROSS


def _pointwise(graph: Graph, node: NodeProto) -> bool:
    weight = graph.constants.get(node.input[1])
    return (
        weight is not None
        and weight.ndim == 4
        and weight.shape[2:] == (1, 1)
        and padding_of(node, 2) == [0] * 4
        and set(attributes(node).get("strides", (1,))) == {1}
    )
