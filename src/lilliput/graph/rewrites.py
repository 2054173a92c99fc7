"""Nodes that can go: those that hand a value on, and those that another does as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import Array
from lilliput.graph.constants import inert
from lilliput.graph.model import Graph

if TYPE_CHECKING:
    from onnx import NodeProto

Shared = Callable[[str, str], bool]


def drop_identities(graph: Graph, shared: Shared | None = None) -> None:
    """Remove Identity nodes and Dropouts that drop nothing.

    Exporters store equal weights once and write the others as Identity of the first. Weights that
    are equal by chance must stay two, or whoever changes one later changes both: `shared(a, b)`
    says whether the network itself uses one parameter under both names (None: always). An alias
    of a shared constant is that constant, another becomes a constant of its own.
    """
    aliases: dict[str, str] = {}
    unneeded: list[NodeProto] = []
    for node in graph.nodes:
        if not _hands_on(graph, node) or node.output[0] in graph.output_names:
            continue
        source, name = aliases.get(node.input[0], node.input[0]), node.output[0]
        unneeded.append(node)
        if source in graph.constants and not (shared is None or shared(source, name)):
            graph.constants[name] = graph.constants[source]
        else:
            aliases[name] = source
    graph.drop(unneeded)
    graph.rename(aliases)
    for node in [n for n in graph.nodes if _hands_on(graph, n)]:
        # An output that is an inner value by another name: the value takes that name itself.
        source, name = node.input[0], node.output[0]
        if source in graph.producers and source not in graph.output_names:
            graph.drop([node])
            graph.rename({source: name})


def merge_slices(graph: Graph) -> None:
    """Two Slices in a row on different axes become one: one pass over memory instead of two."""
    from onnx import helper

    merged = []
    for node in graph.nodes:
        first = graph.producers.get(node.input[0]) if node.op_type == "Slice" else None
        if first is None or first.op_type != "Slice":
            continue
        if graph.sole_reader(first.output[0]) is None:
            continue
        ours, theirs = slice_bounds(graph, first), slice_bounds(graph, node)
        if ours is None or theirs is None or set(ours[2]) & set(theirs[2]):
            continue
        names = [graph.fresh(f"{node.output[0]}:slice{n}") for n in range(4)]
        for name, a, b in zip(names, ours, theirs, strict=True):
            graph.constants[name] = np.concatenate([a, b])
        joined = helper.make_node("Slice", [first.input[0], *names], node.output, name=node.name)
        node.CopyFrom(joined)
        merged.append(first)
    graph.drop(merged)


BROADCASTS = {"Add", "Sub", "Mul", "Div"}


def drop_expands(graph: Graph) -> None:
    """`a * b.expand_as(a)` is `a * b`: arithmetic expands by itself, without copying first."""
    needless: list[NodeProto] = []
    aliases: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type != "Expand" or node.output[0] in graph.output_names:
            continue
        shape = graph.producers.get(node.input[1])
        if shape is None or shape.op_type != "Shape" or shape.attribute:
            continue
        readers, whole = graph.readers.get(node.output[0], []), shape.input[0]
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


def _hands_on(graph: Graph, node: NodeProto) -> bool:
    if node.op_type != "Dropout":
        return str(node.op_type) == "Identity"
    masks = [name for name in node.output[1:] if name]
    seen = any(name in graph.readers or name in graph.output_names for name in masks)
    return not seen and inert(graph, node)
