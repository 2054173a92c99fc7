"""A float ONNX graph as the int8 engine sees it: indexed, with its weighted layers named.

Names follow the torch module paths, so that a pattern such as `layer1.*` means what the user
means by it, whichever exporter wrote the file.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lilliput.errors import LilliputError, Mistakes, Refused, nearest

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]

PER_CHANNEL_OPSET = 13
"""The first opset whose QuantizeLinear takes one scale per channel; below it per-channel scales
are dropped without a word by other tools."""

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


class Graph:
    """A model with its producers, consumers and constants indexed; edits keep the index true.

    The model is a copy of what was given. `pinned` are the tensors that must keep their name:
    graph outputs, and what inner graphs (branches, loop bodies) read.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._arrays: dict[str, Array] = {}
        self.reindex()
        self._name_nodes()

    def reindex(self) -> None:
        """Rebuild the index after nodes were added, removed or rewired."""
        graph = self.model.graph
        self.nodes: dict[str, onnx.NodeProto] = {}
        self.producers: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.pinned = {value.name for value in graph.output} | _inner_reads(graph)
        for node in graph.node:
            self.nodes[node.name] = node
            for name in node.output:
                self.producers[name] = node
            for name in node.input:
                if name:
                    self.consumers.setdefault(name, []).append(node)

    def _name_nodes(self) -> None:
        seen: set[str] = set()
        for number, node in enumerate(self.model.graph.node):
            name = node.name or f"{node.op_type}_{number}"
            while name in seen:
                name += "_"
            seen.add(name)
            node.name = name
        self.reindex()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what a caller feeds (old files also list their initializers as inputs)."""
        return tuple(v.name for v in self.model.graph.input if v.name not in self.initializers)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(v.name for v in self.model.graph.output)

    @property
    def opset(self) -> int:
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 1)

    def constant(self, name: str) -> Array | None:
        """The value of an initializer; None for anything else. Do not write into it."""
        import onnx

        if name not in self.initializers:
            return None
        if name not in self._arrays:
            self._arrays[name] = onnx.numpy_helper.to_array(self.initializers[name])
        return self._arrays[name]

    def weights(self, name: str) -> Array:
        """The initializer `name`, which must exist."""
        value = self.constant(name)
        if value is None:
            raise LilliputError(f"no initializer {name!r} in the graph")
        return value

    def set_constant(self, name: str, value: Array) -> None:
        """Add or replace an initializer."""
        import onnx

        tensor = onnx.numpy_helper.from_array(np.array(value, order="C"), name)
        if name in self.initializers:
            self.initializers[name].CopyFrom(tensor)
        else:
            self.initializers[name] = self.model.graph.initializer.add()
            self.initializers[name].CopyFrom(tensor)
        self._arrays[name] = np.asarray(value)

    def fresh(self, name: str) -> str:
        """A tensor name that is not used yet."""
        inputs = {value.name for value in self.model.graph.input}
        while name in self.producers or name in self.initializers or name in inputs:
            name += "_"
        return name

    def sole_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads `tensor`, if nothing else does and no caller sees it."""
        readers = self.consumers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.pinned else None

    def bypass(self, node: onnx.NodeProto) -> bool:
        """Take out a node that hands its first input on; False when names forbid it."""
        source, result = node.input[0], node.output[0]
        if result in self.pinned:
            maker = self.producers.get(source)
            if maker is None or source in self.pinned or len(self.consumers[source]) != 1:
                return False
            _rename(maker.output, source, result)
        else:
            for reader in self.consumers.get(result, []):
                _rename(reader.input, result, source)
        self.model.graph.node.remove(node)
        self.reindex()
        return True

    def prune(self) -> None:
        """Drop nodes and initializers that no output needs."""
        graph = self.model.graph
        needed = set(self.pinned)
        kept = []
        for node in reversed(list(graph.node)):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        kept.reverse()
        copies = [_copied(node) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
        tensors = [_copied(t) for t in graph.initializer if t.name in needed]
        del graph.initializer[:]
        graph.initializer.extend(tensors)
        values = [_copied(v) for v in graph.input if v.name not in self.initializers]
        del graph.input[:]
        graph.input.extend(values)
        self.reindex()

    def layers(self) -> list[Layer]:
        """The nodes with constant weights, in the order they run."""
        return [layer for node in self.model.graph.node if (layer := _layer(self, node))]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """{name: value} of a node's attributes."""
    import onnx

    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


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


def upgrade_opset(model: onnx.ModelProto, *, least: int = PER_CHANNEL_OPSET) -> onnx.ModelProto:
    """The model at opset `least` or above (itself when it is there already).

    Raises:
        Refused: the converter cannot lift one of the model's operators.
    """
    from onnx import version_converter

    have = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    if have >= least:
        return model
    try:
        lifted: onnx.ModelProto = version_converter.convert_version(model, least)
    except Exception as error:  # the converter raises bare RuntimeErrors and more
        raise Refused(
            f"the file is at opset {have}, per-channel int8 needs {least}, and onnx cannot "
            f"convert it ({error})",
            hint=f"export the network again at opset {least} or above",
        ) from error
    return lifted


def _layer(graph: Graph, node: onnx.NodeProto) -> Layer | None:
    if node.op_type not in WEIGHTED or node.domain not in ("", "ai.onnx") or len(node.input) < 2:
        return None
    weight = graph.constant(node.input[1])
    if weight is None or not np.issubdtype(weight.dtype, np.floating) or weight.ndim < 2:
        return None
    facts = attributes(node)
    groups = int(facts.get("group", 1))
    axis = {
        "Conv": 0,
        "ConvTranspose": 1,
        "Gemm": 0 if facts.get("transB", 0) else 1,
        "MatMul": weight.ndim - 1,
    }[node.op_type]
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


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _rename(names: Any, old: str, new: str) -> None:
    for position, name in enumerate(names):
        if name == old:
            names[position] = new


def _inner_reads(graph: onnx.GraphProto) -> set[str]:
    """Names read inside branches and loop bodies; some are local there, which does no harm."""
    import onnx

    reads: set[str] = set()
    waiting = [
        inner
        for node in graph.node
        for attribute in node.attribute
        for inner in ((attribute.g,) if attribute.HasField("g") else tuple(attribute.graphs))
    ]
    while waiting:
        inner = waiting.pop()
        for node in inner.node:
            reads.update(node.input)
            waiting.extend(a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
        reads.update(value.name for value in inner.output)
    return reads
