"""Exact rewrites of operators into the forms that int8 runtimes know.

A mean over height and width becomes a global pool, and the five nodes of an exported GELU become
the one operator they stand for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lilliput.data.dataset import Array
from lilliput.graph import Graph, attributes
from lilliput.graph.shapes import inferred_shapes

if TYPE_CHECKING:
    from onnx import NodeProto

GELU_OPSET = 20
"""The first opset with a Gelu operator."""


def has_gelu(graph: Graph) -> bool:
    """Whether `fuse_gelus` would find anything."""
    return any(_gelu_of(graph, node) for node in graph.nodes if node.op_type == "Erf")


def fuse_gelus(graph: Graph) -> None:
    """Replace x / sqrt(2) → Erf → + 1 → * x → * 0.5 (the factors in any order) by Gelu.

    Quantizing would otherwise part the nodes, and runtimes would no longer see what they are.
    """
    from onnx import helper

    for erf in [node for node in graph.nodes if node.op_type == "Erf"]:
        found = _gelu_of(graph, erf)
        if found is None:
            continue
        source, last, members = found
        fused = helper.make_node(
            "Gelu", [source], [last.output[0]], name=f"{erf.name}_Gelu", approximate="none"
        )
        graph.insert(fused, last)
        graph.drop(members)


def pool_means(graph: Graph) -> None:
    """Turn a mean over height and width into GlobalAveragePool, which runtimes have in int8."""
    means = [node for node in graph.nodes if node.op_type == "ReduceMean"]
    known = inferred_shapes(graph) if means else {}
    for node in means:
        facts = attributes(node)
        axes = facts.get("axes")
        if axes is None and len(node.input) > 1:
            listed = graph.constants.get(node.input[1])
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


def _gelu_of(graph: Graph, erf: NodeProto) -> tuple[str, NodeProto, list[NodeProto]] | None:
    """(source tensor, last node, all five nodes) of the GELU around an Erf; None if it is none."""
    scaled = graph.producers.get(erf.input[0])
    if scaled is None or scaled.op_type not in ("Div", "Mul"):
        return None
    factor = math.sqrt(2.0) if scaled.op_type == "Div" else 1.0 / math.sqrt(2.0)
    source = _other(graph, scaled, factor)
    added = graph.sole_reader(erf.output[0])
    if source is None or added is None or added.op_type != "Add":
        return None
    if _other(graph, added, 1.0) is None or graph.sole_reader(scaled.output[0]) is not erf:
        return None
    members = [scaled, erf, added]
    halved = source_seen = False
    result = added.output[0]
    while not (halved and source_seen):
        node = graph.sole_reader(result)
        if node is None or node.op_type != "Mul":
            return None
        other = node.input[1] if node.input[0] == result else node.input[0]
        constant = graph.constants.get(other)
        if constant is not None and not halved and _equals(constant, 0.5):
            halved = True
        elif other == source and not source_seen:
            source_seen = True
        else:
            return None
        members.append(node)
        result = node.output[0]
    return source, members[-1], members


def _other(graph: Graph, node: NodeProto, constant: float) -> str | None:
    """The node's data input, if its other input is this constant (a divisor comes second)."""
    for data, side in ((0, 1), (1, 0)):
        value = graph.constants.get(node.input[side])
        if value is not None and _equals(value, constant) and (node.op_type != "Div" or side == 1):
            return str(node.input[data])
    return None


def _equals(value: Array, constant: float) -> bool:
    return value.size == 1 and math.isclose(float(value.reshape(-1)[0]), constant, rel_tol=1e-4)


def _flatten_after(graph: Graph, node: NodeProto) -> None:
    from onnx import helper

    result = node.output[0]
    node.output[0] = graph.fresh(result + "_pooled")
    flat = helper.make_node(
        "Flatten", [node.output[0]], [result], name=f"{node.name}_flatten", axis=1
    )
    graph.nodes.insert(graph.nodes.index(node) + 1, flat)
