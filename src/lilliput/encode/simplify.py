"""Exact rewrites of operators into the forms that int8 runtimes know.

A mean over height and width becomes a global pool, explicit padding and slicing is merged, and
the five nodes of an exported GELU become the one operator they stand for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lilliput.encode.graph import Array, Graph, attributes
from lilliput.encode.shapes import shapes

if TYPE_CHECKING:
    import onnx

GELU_OPSET = 20
"""The first opset with a Gelu operator."""


def simplify(graph: Graph) -> None:
    """All rewrites of this module, in place."""
    pool_means(graph)
    fold_pads(graph)
    merge_slices(graph)
    if graph.opset >= GELU_OPSET:
        fuse_gelus(graph)


def has_gelu(graph: Graph) -> bool:
    """Whether `fuse_gelus` would find anything."""
    return any(_gelu_of(graph, node) for node in graph.model.graph.node if node.op_type == "Erf")


def fuse_gelus(graph: Graph) -> None:
    """Replace x / sqrt(2) → Erf → + 1 → * x → * 0.5 (the factors in any order) by Gelu.

    Quantizing would otherwise part the nodes, and runtimes would no longer see what they are.
    """
    import onnx

    for erf in [node for node in graph.model.graph.node if node.op_type == "Erf"]:
        found = _gelu_of(graph, erf)
        if found is None:
            continue
        source, last, members = found
        fused = onnx.helper.make_node(
            "Gelu", [source], [last.output[0]], name=f"{erf.name}_Gelu", approximate="none"
        )
        position = list(graph.model.graph.node).index(last)
        graph.model.graph.node.insert(position, fused)
        for member in members:
            graph.model.graph.node.remove(member)
        graph.reindex()


def pool_means(graph: Graph) -> None:
    """Turn a mean over height and width into GlobalAveragePool, which runtimes have in int8."""
    means = [node for node in graph.model.graph.node if node.op_type == "ReduceMean"]
    known = shapes(graph) if means else {}
    for node in means:
        facts = attributes(node)
        axes = facts.get("axes")
        if axes is None and len(node.input) > 1:
            listed = graph.constant(node.input[1])
            axes = None if listed is None else listed.tolist()
        rank = len(known.get(node.input[0], ()))
        if axes is None or rank != 4 or sorted(a % 4 for a in axes) != [2, 3]:
            continue
        keep = facts.get("keepdims", 1)
        node.op_type = "GlobalAveragePool"
        del node.attribute[:]
        del node.input[1:]
        if not keep:
            _flatten_after(graph, node)
        graph.reindex()


def fold_pads(graph: Graph) -> None:
    """Give the zero padding of a Pad node to the convolution that alone reads it."""
    for node in list(graph.model.graph.node):
        layer = graph.sole_consumer(node.output[0]) if node.op_type == "Pad" else None
        pads = _zero_pads(graph, node) if layer is not None and layer.op_type == "Conv" else None
        if layer is None or pads is None:
            continue
        rank = len(pads) // 2
        facts = attributes(layer)
        spatial = pads[2:rank] + pads[rank + 2 :]
        explicit = facts.get("auto_pad", b"NOTSET") in (b"", b"NOTSET")
        if not explicit or layer.input[0] != node.output[0] or min(pads) < 0:
            continue
        if any(pads[:2]) or any(pads[rank : rank + 2]):
            continue
        old = facts.get("pads", [0] * len(spatial))
        _set_ints(layer, "pads", [a + b for a, b in zip(old, spatial, strict=True)])
        graph.bypass(node)


def merge_slices(graph: Graph) -> None:
    """Merge a Slice into the Slice that alone reads it, where they cut different axes."""
    for second in list(graph.model.graph.node):
        first = graph.producers.get(second.input[0]) if second.op_type == "Slice" else None
        if first is None or first.op_type != "Slice":
            continue
        if graph.sole_consumer(first.output[0]) is None:
            continue
        cuts = [_slice_settings(graph, node) for node in (first, second)]
        if any(cut is None for cut in cuts):
            continue
        joined = [np.concatenate([a, b]) for a, b in zip(*cuts, strict=True)]
        axes = joined[2]
        if len(set(axes.tolist())) != len(axes) or (axes < 0).any():
            continue
        del second.input[1:]
        for part, value in zip(("starts", "ends", "axes", "steps"), joined, strict=True):
            name = graph.fresh(f"{second.name}_{part}")
            graph.set_constant(name, value)
            second.input.append(name)
        graph.reindex()
        graph.bypass(first)


def _gelu_of(
    graph: Graph, erf: onnx.NodeProto
) -> tuple[str, onnx.NodeProto, list[onnx.NodeProto]] | None:
    """(source tensor, last node, all five nodes) of the GELU around an Erf; None if it is none."""
    scaled = graph.producers.get(erf.input[0])
    if scaled is None or scaled.op_type not in ("Div", "Mul"):
        return None
    factor = math.sqrt(2.0) if scaled.op_type == "Div" else 1.0 / math.sqrt(2.0)
    source = _other(graph, scaled, factor)
    added = graph.sole_consumer(erf.output[0])
    if source is None or added is None or added.op_type != "Add":
        return None
    if _other(graph, added, 1.0) is None or graph.sole_consumer(scaled.output[0]) is not erf:
        return None
    members = [scaled, erf, added]
    halved = source_seen = False
    result = added.output[0]
    while not (halved and source_seen):
        node = graph.sole_consumer(result)
        if node is None or node.op_type != "Mul":
            return None
        other = node.input[1] if node.input[0] == result else node.input[0]
        constant = graph.constant(other)
        if constant is not None and not halved and _equals(constant, 0.5):
            halved = True
        elif other == source and not source_seen:
            source_seen = True
        else:
            return None
        members.append(node)
        result = node.output[0]
    return source, members[-1], members


def _other(graph: Graph, node: onnx.NodeProto, constant: float) -> str | None:
    """The node's data input, if its other input is this constant (a divisor comes second)."""
    for data, side in ((0, 1), (1, 0)):
        value = graph.constant(node.input[side])
        if value is not None and _equals(value, constant) and (node.op_type != "Div" or side == 1):
            return str(node.input[data])
    return None


def _equals(value: Array, constant: float) -> bool:
    return value.size == 1 and math.isclose(float(value.reshape(-1)[0]), constant, rel_tol=1e-4)


def _zero_pads(graph: Graph, node: onnx.NodeProto) -> list[int] | None:
    """The pads (begins then ends) of a constant-zero Pad over all axes; None for another kind."""
    if attributes(node).get("mode", b"constant") != b"constant" or len(node.input) > 3:
        return None
    pads = graph.constant(node.input[1]) if len(node.input) > 1 else None
    fill = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if pads is None or fill is None or fill.any():
        return None
    return [int(p) for p in pads]


def _slice_settings(graph: Graph, node: onnx.NodeProto) -> list[Array] | None:
    """Constant starts, ends, axes and steps of a Slice, each (n,) int64."""
    values = [graph.constant(name) for name in node.input[1:]]
    if len(values) < 3 or any(v is None for v in values):
        return None
    full = [np.asarray(v, np.int64) for v in values]
    return full if len(full) == 4 else [*full, np.ones_like(full[0])]


def _set_ints(node: onnx.NodeProto, name: str, values: list[int]) -> None:
    import onnx

    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, values)])


def _flatten_after(graph: Graph, node: onnx.NodeProto) -> None:
    import onnx

    result = node.output[0]
    node.output[0] = graph.fresh(result + "_pooled")
    flat = onnx.helper.make_node(
        "Flatten", [node.output[0]], [result], name=f"{node.name}_flatten", axis=1
    )
    position = list(graph.model.graph.node).index(node)
    graph.model.graph.node.insert(position + 1, flat)
