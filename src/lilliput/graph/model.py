"""An ONNX graph as plain lists and numpy constants, cheap to rewrite and to write back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lilliput.data.dataset import Array
from lilliput.errors import LilliputError
from lilliput.onnx_io import inner_graphs

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

STANDARD = ("", "ai.onnx")
"""The names of the domain of ONNX's own operators."""

NO_LONGER_INPUTS = 4
"""The first IR version whose constants need not be listed among the inputs."""


@dataclass(eq=False)
class Graph:
    """Nodes in topological order, constants by name, and the values that come in and go out.

    Every node has a name of its own. Constants are replaced, never written into. `frame` is the
    rest of the model (opsets, functions, metadata), with tensors of types that numpy has not.

    `producers`, `readers` and `named` are kept until the next edit by a method of this class;
    whoever edits a node's inputs or outputs calls `reindex` afterwards.
    """

    frame: ModelProto
    nodes: list[NodeProto]
    constants: dict[str, Array]
    inputs: list[ValueInfoProto]
    outputs: list[ValueInfoProto]

    @classmethod
    def of(cls, model: ModelProto) -> Graph:
        """A copy of the model, taken apart; `Constant` nodes become constants."""
        from onnx import ModelProto, helper, numpy_helper

        frame = ModelProto()
        frame.CopyFrom(model)
        constants: dict[str, Array] = {}
        kept = []
        for tensor in frame.graph.initializer:
            value = numpy_helper.to_array(tensor)
            if helper.np_dtype_to_tensor_dtype(value.dtype) == tensor.data_type:
                constants[tensor.name] = value
            else:
                kept.append(tensor)
        nodes, outputs = [], list(frame.graph.output)
        given_out = {value.name for value in outputs}
        for node in frame.graph.node:
            stored = None if node.output[0] in given_out else _constant_value(node)
            if stored is None:
                nodes.append(node)
            else:
                constants[node.output[0]] = stored
        known = constants.keys() | {tensor.name for tensor in kept}
        inputs = [value for value in frame.graph.input if value.name not in known]
        for part in ("node", "initializer", "input", "output", "value_info"):
            frame.graph.ClearField(part)
        frame.graph.initializer.extend(kept)
        _name(nodes)
        return cls(frame, nodes, constants, inputs, outputs)

    def model(self) -> ModelProto:
        """The graph as a model; constants that are used are stored in the order of their use."""
        from onnx import ModelProto, numpy_helper

        model = ModelProto()
        model.CopyFrom(self.frame)
        model.ir_version = max(model.ir_version, NO_LONGER_INPUTS)
        model.graph.node.extend(self.nodes)
        model.graph.input.extend(self.inputs)
        model.graph.output.extend(self.outputs)
        used = [name for node in self.nodes for name in needs(node)]
        for name in dict.fromkeys((*used, *self.output_names)):
            if name in self.constants:
                value = np.asarray(self.constants[name], order="C")
                model.graph.initializer.append(numpy_helper.from_array(value, name))
        return model

    def copy(self) -> Graph:
        """Another graph, to edit apart from this one."""
        return Graph(
            _copied(self.frame),
            [_copied(node) for node in self.nodes],
            dict(self.constants),
            [_copied(value) for value in self.inputs],
            [_copied(value) for value in self.outputs],
        )

    @property
    def opset(self) -> int:
        return opset_of(self.frame)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of what a caller feeds."""
        return tuple(value.name for value in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.outputs)

    @property
    def nested(self) -> bool:
        """Whether some node holds a graph of its own (branches, loops), which sees our names."""
        return any(inner_graphs([node]) for node in self.nodes)

    @property
    def pinned(self) -> set[str]:
        """What others see by its name: the graph's outputs, and what inner graphs read."""
        seen = set(self.output_names)
        for node in self.nodes:
            seen.update(needs(node)[sum(map(bool, node.input)) :])
        return seen

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """{value: the node that computes it}."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def readers(self) -> dict[str, list[NodeProto]]:
        """{value: the nodes that read it, each as often as it does}."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in needs(node):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def named(self) -> dict[str, NodeProto]:
        """{name: node}."""
        return {node.name: node for node in self.nodes}

    def reindex(self) -> None:
        """Forget who makes and who reads what, after nodes were edited."""
        for index in ("producers", "readers", "named"):
            self.__dict__.pop(index, None)

    def sole_reader(self, value: str) -> NodeProto | None:
        """The one node that reads the value, if nothing else does and no caller sees it."""
        readers = self.readers.get(value, [])
        return readers[0] if len(readers) == 1 and value not in self.output_names else None

    def dequantized(self, value: str) -> bool:
        """Whether a value comes out of a DequantizeLinear: its reader is meant to be int8."""
        maker = self.producers.get(value)
        return maker is not None and maker.op_type == "DequantizeLinear"

    def weights(self, name: str) -> Array:
        """The constant `name`.

        Raises:
            LilliputError: there is none.
        """
        if name not in self.constants:
            raise LilliputError(f"no constant {name!r} in the graph")
        return self.constants[name]

    def fresh(self, name: str) -> str:
        """The name, with a mark behind it where it is taken."""
        others = {*self.input_names, *(tensor.name for tensor in self.frame.graph.initializer)}
        while name in self.producers or name in self.constants or name in others:
            name += "_"
        return name

    def insert(self, node: NodeProto, before: NodeProto) -> None:
        """Have `node` run just before another."""
        self.nodes.insert(next(n for n, other in enumerate(self.nodes) if other is before), node)
        self.reindex()

    def drop(self, unwanted: Iterable[NodeProto]) -> None:
        """Take out nodes whose outputs nobody reads any longer."""
        gone = {id(node) for node in unwanted}
        self.nodes = [node for node in self.nodes if id(node) not in gone]
        self.reindex()

    def rename(self, names: Mapping[str, str]) -> None:
        """Rename values wherever they are written or read, constants included."""
        for node in self.nodes:
            _rename_in(node, names)
        for value in (*self.inputs, *self.outputs, *self.frame.graph.initializer):
            value.name = names.get(value.name, value.name)
        self.constants = {names.get(k, k): v for k, v in self.constants.items()}
        self.reindex()

    def prune(self) -> None:
        """Remove nodes and constants that no output depends on."""
        wanted = set(self.output_names)
        kept: list[NodeProto] = []
        for node in reversed(self.nodes):
            if any(name in wanted for name in node.output):
                kept.append(node)
                wanted.update(needs(node))
        self.nodes = kept[::-1]
        self.constants = {k: v for k, v in self.constants.items() if k in wanted}
        self.reindex()


def attributes(node: NodeProto) -> dict[str, Any]:
    """{name: value} of a node's attributes."""
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def needs(node: NodeProto) -> list[str]:
    """Every outer value that the node reads: its inputs, then what graphs inside it capture."""
    names = [name for name in node.input if name]
    for graph in inner_graphs([node]):
        made = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        for inner in graph.node:
            names += [n for n in needs(inner) if n not in made]
            made.update(inner.output)
        names += [o.name for o in graph.output if o.name not in made]
    return names


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that the model uses."""
    return next((int(o.version) for o in model.opset_import if o.domain in STANDARD), 1)


def _rename_in(node: NodeProto, names: Mapping[str, str]) -> None:
    for field_values in (node.input, node.output):
        for position, name in enumerate(field_values):
            if name in names:
                field_values[position] = names[name]
    for graph in inner_graphs([node]):
        for inner in graph.node:
            _rename_in(inner, names)
        for value in graph.output:
            value.name = names.get(value.name, value.name)


def _name(nodes: Iterable[NodeProto]) -> None:
    """Give each node a name that no other has: its own, or that of its first output."""
    seen: set[str] = set()
    for node in nodes:
        name = node.name or next(filter(None, node.output), node.op_type)
        while name in seen:
            name += "_"
        seen.add(name)
        node.name = name


def _constant_value(node: NodeProto) -> Array | None:
    from onnx import helper, numpy_helper

    if node.op_type != "Constant" or not node.attribute:
        return None
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return np.asarray(numpy_helper.to_array(value))
    kind = {"value_int": "int64", "value_float": "float32"}.get(attribute.name.removesuffix("s"))
    return None if kind is None else np.asarray(value, np.dtype(kind))


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
