"""Rewrites that leave a graph's function as it is and its node list shorter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, helper

from lilliput.data.dataset import Array
from lilliput.export.graph import Graph

Shared = Callable[[str, str], bool]


def drop_identities(graph: Graph, shared: Shared) -> None:
    """Remove Identity nodes; an alias of a constant becomes a constant of its own unless shared.

    Exporters store equal weights once and write the others as Identity of the first. Weights that
    are equal by chance must stay two, or whoever changes one later changes both: `shared(a, b)`
    says whether the network itself uses one parameter under both names.
    """
    aliases: dict[str, str] = {}
    unneeded: list[NodeProto] = []
    for node in graph.nodes:
        if node.op_type != "Identity":
            continue
        source, name = aliases.get(node.input[0], node.input[0]), node.output[0]
        if name in graph.output_names:
            continue
        unneeded.append(node)
        if source in graph.constants and not shared(source, name):
            graph.constants[name] = graph.constants[source]
        else:
            aliases[name] = source
    graph.drop(unneeded)
    graph.rename(aliases)
    _name_outputs_directly(graph)


def merge_slices(graph: Graph) -> None:
    """Two Slices in a row on different axes become one: one pass over memory instead of two."""
    users, producers = graph.users(), graph.producers()
    merged = []
    for node in graph.nodes:
        first = producers.get(node.input[0]) if node.op_type == "Slice" else None
        if first is None or first.op_type != "Slice":
            continue
        if not graph.feeds_only(first.output[0], node, users):
            continue
        ours, theirs = slice_bounds(graph, first), slice_bounds(graph, node)
        if ours is None or theirs is None or set(ours[2]) & set(theirs[2]):
            continue
        names = [f"{node.output[0]}:slice{n}" for n in range(4)]
        for name, a, b in zip(names, ours, theirs, strict=True):
            graph.constants[name] = np.concatenate([a, b])
        joined = helper.make_node("Slice", [first.input[0], *names], node.output, name=node.name)
        node.CopyFrom(joined)
        merged.append(first)
    graph.drop(merged)


BROADCASTS = {"Add", "Sub", "Mul", "Div"}


def drop_expands(graph: Graph) -> None:
    """`a * b.expand_as(a)` is `a * b`: arithmetic expands by itself, without copying first."""
    users, producers = graph.users(), graph.producers()
    needless: list[NodeProto] = []
    aliases: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type != "Expand" or node.output[0] in graph.output_names:
            continue
        shape = producers.get(node.input[1])
        if shape is None or shape.op_type != "Shape" or shape.attribute:
            continue
        readers, whole = users.get(node.output[0], []), shape.input[0]
        if readers and all(r.op_type in BROADCASTS and whole in r.input for r in readers):
            aliases[node.output[0]] = node.input[0]
            needless.append(node)
    graph.drop(needless)
    graph.rename(aliases)


def slice_bounds(graph: Graph, node: NodeProto) -> tuple[Array, Array, Array, Array] | None:
    """Constant (starts, ends, axes, steps) of a Slice; None where they are computed."""
    values = [graph.constants.get(name) for name in node.input[1:]]
    if len(values) < 3 or any(v is None for v in values):
        return None
    starts, ends, axes = (np.asarray(v, np.int64) for v in values[:3])
    steps = np.asarray(values[3], np.int64) if len(values) > 3 else np.ones_like(starts)
    # A negative axis may be the same axis as a positive one: without the rank nobody knows.
    return None if (axes < 0).any() else (starts, ends, axes, steps)


def _name_outputs_directly(graph: Graph) -> None:
    """An output that is an Identity of an inner value becomes that value's own name."""
    producers = graph.producers()
    for node in list(graph.nodes):
        if node.op_type != "Identity" or node.output[0] not in graph.output_names:
            continue
        source, name = node.input[0], node.output[0]
        if source not in producers or source in graph.output_names:
            continue
        graph.drop([node])
        graph.rename({source: name})
        producers = graph.producers()
