"""Names in the file: nodes and weights by the path of their torch module, values by number."""

from __future__ import annotations

import re
from collections.abc import Iterable

from onnx import NodeProto

from lilliput.graph import Graph
from lilliput.graph.affine import VERSION

ROLES = {
    "Conv": {1: "weight", 2: "bias"},
    "ConvTranspose": {1: "weight", 2: "bias"},
    "Gemm": {1: "weight", 2: "bias"},
    "MatMul": {0: "weight", 1: "weight"},
    "BatchNormalization": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"},
    "InstanceNormalization": {1: "weight", 2: "bias"},
    "LayerNormalization": {1: "weight", 2: "bias"},
    "PRelu": {1: "weight"},
}
"""What a layer calls the constant at an input's position."""


def set_names(graph: Graph, keys: Iterable[str], modules: Iterable[str], wrapper: str) -> None:
    """Name nodes "layer1.0.conv1" (the layer itself) or "layer1.0/Add", weights "….weight".

    `keys` are the names of the network's parameters and buffers, `modules` its modules' paths;
    `wrapper` is the prefix under which the exporter saw the network. Values between nodes get
    short numbers: nothing reads them, and their text was a tenth of a small int8 file.
    """
    keys, modules = set(keys), sorted(set(modules))
    parents = {path.rpartition(".")[0] for path in modules}
    taken: set[str] = set()
    for node in graph.nodes:
        path = _owner_of_weight(graph, node, keys, wrapper)
        itself = path is not None
        if path is None:
            path = _by_scope(node, modules, wrapper)
            itself = path not in parents and node.op_type in ROLES
        node.name = _free(path if itself and path else f"{path}/{node.op_type}".lstrip("/"), taken)
    if graph.nested:
        return
    graph.rename(_constant_names(graph, keys, wrapper))
    graph.rename(_value_names(graph))


def _owner_of_weight(graph: Graph, node: NodeProto, keys: set[str], wrapper: str) -> str | None:
    """The path of the module whose weight the node reads, if it is the network's own."""
    for position in ROLES.get(node.op_type, {}):
        name = node.input[position] if position < len(node.input) else ""
        origin = name.split(VERSION)[0].removeprefix(wrapper)
        if name in graph.constants and origin in keys and not origin.endswith("bias"):
            return origin.rpartition(".")[0]
    return None


def _by_scope(node: NodeProto, modules: list[str], wrapper: str) -> str:
    """Scopes name the modules that were called; a part that is no path may be the end of one."""
    scopes = _dynamo_scopes(node) or node.name.split("/")[:-1]
    for scope in reversed(scopes):
        path = f"{scope}.".removeprefix(wrapper).rstrip(".")
        if path in modules:
            return path
        ends = [m for m in modules if m.endswith(f".{path}")] if path else []
        if len(ends) == 1:
            return ends[0]
    return ""


def _dynamo_scopes(node: NodeProto) -> list[str]:
    for entry in getattr(node, "metadata_props", ()):
        if entry.key == "pkg.torch.onnx.name_scopes":
            return re.findall(r"'([^']*)'", entry.value)[:-1]
    return []


def _constant_names(graph: Graph, keys: set[str], wrapper: str) -> dict[str, str]:
    names: dict[str, str] = {}
    taken = {value.name for value in (*graph.inputs, *graph.outputs)}
    for node in graph.nodes:
        for position, name in enumerate(node.input):
            if name not in graph.constants or name in names:
                continue
            key = name.removeprefix(wrapper)
            role = ROLES.get(node.op_type, {}).get(position)
            if key in keys:
                wanted = key
            elif role and "/" not in node.name:
                wanted = f"{node.name}.{role}"
            else:
                wanted = f"c{len(names)}"
            names[name] = _free(wanted, taken)
    return names


def _value_names(graph: Graph) -> dict[str, str]:
    fixed = {value.name for value in (*graph.inputs, *graph.outputs)} | set(graph.constants)
    made = [name for node in graph.nodes for name in node.output if name and name not in fixed]
    mark = "t"
    while any(name.startswith(mark) for name in fixed if name[len(mark) :].isdigit()):
        mark = f"_{mark}"
    return {name: f"{mark}{number}" for number, name in enumerate(made)}


def _free(name: str, taken: set[str]) -> str:
    """The name, or the name with the first number that makes it unique."""
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
