"""An ONNX graph as plain lists and numpy constants, cheap to rewrite and to write back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper

from lilliput.data.dataset import Array

Attributes = dict[str, Any]


@dataclass
class Graph:
    """Nodes in topological order, constants by name, and the values that come in and go out."""

    nodes: list[NodeProto]
    constants: dict[str, Array]
    inputs: list[ValueInfoProto]
    outputs: list[ValueInfoProto]
    opset: int
    ir_version: int
    domains: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Graph:
        """A copy of the model, taken apart; `Constant` nodes become constants."""
        own = onnx.ModelProto()
        own.CopyFrom(model)
        model = own
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        nodes = []
        for node in model.graph.node:
            value = _constant_value(node)
            if value is None:
                nodes.append(node)
            else:
                constants[node.output[0]] = value
        opsets = {entry.domain: int(entry.version) for entry in model.opset_import}
        return cls(
            nodes=nodes,
            constants=constants,
            inputs=[i for i in model.graph.input if i.name not in constants],
            outputs=list(model.graph.output),
            opset=opsets.pop("", opsets.pop("ai.onnx", 1)),
            ir_version=model.ir_version,
            domains=opsets,
        )

    def model(self, name: str = "network") -> onnx.ModelProto:
        """The graph as a model; constants are stored in the order of their first use."""
        first_use = list(dict.fromkeys(i for node in self.nodes for i in needs(node)))
        first_use += [o.name for o in self.outputs]
        stored = [
            numpy_helper.from_array(np.asarray(self.constants[n], order="C"), n)
            for n in dict.fromkeys(first_use)
            if n in self.constants
        ]
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, stored)
        opsets = {"": self.opset, **self.domains}
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()],
            ir_version=self.ir_version,
        )

    @property
    def output_names(self) -> set[str]:
        return {o.name for o in self.outputs}

    @property
    def nested(self) -> bool:
        """Whether some node holds a graph of its own (branches, loops), which sees our names."""
        return any(_graphs(node) for node in self.nodes)

    def users(self) -> dict[str, list[NodeProto]]:
        """{value: the nodes that read it}."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(needs(node)):
                found.setdefault(name, []).append(node)
        return found

    def producers(self) -> dict[str, NodeProto]:
        """{value: the node that computes it}."""
        return {name: node for node in self.nodes for name in node.output if name}

    def feeds_only(self, value: str, node: NodeProto, users: Mapping[str, list[NodeProto]]) -> bool:
        """Whether `node` is all that reads `value`, which is no output either."""
        readers = users.get(value, [])
        return len(readers) == 1 and readers[0] is node and value not in self.output_names

    def rename(self, names: Mapping[str, str]) -> None:
        """Rename values wherever they are written or read, constants included."""
        for node in self.nodes:
            _rename_in(node, names)
        for value in (*self.inputs, *self.outputs):
            value.name = names.get(value.name, value.name)
        self.constants = {names.get(k, k): v for k, v in self.constants.items()}

    def drop(self, unwanted: Iterable[NodeProto]) -> None:
        gone = {id(node) for node in unwanted}
        self.nodes = [node for node in self.nodes if id(node) not in gone]

    def prune_unused(self) -> None:
        """Remove nodes and constants that no output depends on."""
        wanted = self.output_names
        kept: list[NodeProto] = []
        for node in reversed(self.nodes):
            if any(name in wanted for name in node.output):
                kept.append(node)
                wanted.update(needs(node))
        self.nodes = kept[::-1]
        self.constants = {k: v for k, v in self.constants.items() if k in wanted}


def attributes(node: NodeProto) -> Attributes:
    """{name: value} of a node's attributes."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def needs(node: NodeProto) -> list[str]:
    """Every outer value that the node reads, also those that graphs inside it capture."""
    names = [name for name in node.input if name]
    for graph in _graphs(node):
        made = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        for inner in graph.node:
            names += [n for n in needs(inner) if n not in made]
            made.update(inner.output)
        names += [o.name for o in graph.output if o.name not in made]
    return names


def _rename_in(node: NodeProto, names: Mapping[str, str]) -> None:
    for field_values in (node.input, node.output):
        for position, name in enumerate(field_values):
            if name in names:
                field_values[position] = names[name]
    for graph in _graphs(node):
        for inner in graph.node:
            _rename_in(inner, names)
        for value in graph.output:
            value.name = names.get(value.name, value.name)


def _graphs(node: NodeProto) -> list[Any]:
    found = [a.g for a in node.attribute if a.HasField("g")]
    return found + [g for a in node.attribute for g in a.graphs]


def _constant_value(node: NodeProto) -> Array | None:
    if node.op_type != "Constant" or not node.attribute:
        return None
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return np.asarray(numpy_helper.to_array(value))
    kind = {"value_int": "int64", "value_float": "float32"}.get(attribute.name.removesuffix("s"))
    return None if kind is None else np.asarray(value, np.dtype(kind))
