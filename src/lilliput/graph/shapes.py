"""Shapes computed at run time, replaced by constants wherever they are known beforehand.

An exporter writes `x.view(x.size(0), -1)` as Shape, Gather, Unsqueeze, Concat, Reshape. The four
helpers cost time in every runtime, hide the reshape from quantizers and break a runtime's blocked
layouts, and all they say is "keep the batch".
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import Array
from lilliput.graph.model import Graph, attributes

if TYPE_CHECKING:
    from onnx import NodeProto, ValueInfoProto

Size = int | str | None
"""A dimension: a number, a symbol that stands for the same number everywhere, or unknown."""

Vector = tuple[Size, ...]
Operands = Sequence[Vector | None]
Shapes = dict[str, Vector]

INT64 = 7
"""ONNX's number of the type that shapes have."""

LARGE = 1024
PASSES = 3
"""A reshape that becomes constant reveals shapes behind it, which may make another constant."""


def settle_shapes(graph: Graph) -> None:
    """Replace computed shape vectors by constants, and the targets of Reshape by 0 and -1."""
    for _ in range(PASSES):
        if not any(node.op_type in ("Shape", "Size") for node in graph.nodes):
            return
        shapes = inferred_shapes(graph)
        vectors = _shape_vectors(graph, shapes)
        changed = [_settle(graph, node, vectors, shapes) for node in graph.nodes]
        graph.prune()
        if not any(changed):
            return


def inferred_shapes(graph: Graph) -> Shapes:
    """What shape inference knows of every value; values that it knows nothing of are left out."""
    shapes = {value.name: dims_of(value) for value in inferred_values(graph)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.frame.graph.initializer}
    return shapes | {name: tuple(value.shape) for name, value in graph.constants.items()}


def inferred_values(graph: Graph) -> list[ValueInfoProto]:
    """Type and shape of every value that is no constant and whose rank follows from the inputs."""
    from onnx import helper, shape_inference

    # Large constants only slow inference down; their shapes are what matters.
    large = {name: value for name, value in graph.constants.items() if value.size > LARGE}
    declared = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in large.items()
    ]
    small = {name: value for name, value in graph.constants.items() if name not in large}
    light = replace(graph, constants=small, inputs=[*graph.inputs, *declared])
    done = shape_inference.infer_shapes(light.model(), data_prop=True).graph
    values = (*done.value_info, *done.input, *done.output)
    return [v for v in values if v.type.tensor_type.HasField("shape")]


def dims_of(value: ValueInfoProto) -> Vector:
    """The sizes of a declared value."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    )


def _shape_vectors(graph: Graph, shapes: Shapes) -> dict[str, Vector]:
    """{integer value: its elements}, as far as they follow from shapes (flattened)."""
    vectors: dict[str, Vector] = {
        name: tuple(int(v) for v in value.ravel())
        for name, value in graph.constants.items()
        if value.dtype == np.int64 and value.size <= 64
    }
    for node in graph.nodes:
        result: Vector | None = None
        if node.op_type == "Shape":
            result = _part_of_shape(node, shapes.get(node.input[0]))
        elif node.op_type in _RULES:
            result = _RULES[node.op_type](node, [vectors.get(name) for name in node.input])
        if result is not None:
            vectors[node.output[0]] = result
    return vectors


def _part_of_shape(node: NodeProto, dims: Vector | None) -> Vector | None:
    settings = attributes(node)
    start, end = settings.get("start", 0), settings.get("end")
    return None if dims is None else dims[start:end]


def _same(node: NodeProto, operands: Operands) -> Vector | None:
    whole = node.op_type != "Cast" or attributes(node)["to"] == INT64
    return operands[0] if whole else None


def _gather(node: NodeProto, operands: Operands) -> Vector | None:
    source, index = operands
    if source is None or index is None or attributes(node).get("axis", 0) != 0:
        return None
    picks = [i for i in index if isinstance(i, int) and -len(source) <= i < len(source)]
    return tuple(source[i] for i in picks) if len(picks) == len(index) else None


def _slice(_: NodeProto, operands: Operands) -> Vector | None:
    source, *bounds = operands
    numbers = [b[0] for b in bounds if b is not None and len(b) == 1 and isinstance(b[0], int)]
    if source is None or len(numbers) != len(bounds) or any(n != 0 for n in numbers[2:3]):
        return None
    return source[slice(numbers[0], numbers[1], numbers[3] if len(numbers) > 3 else 1)]


def _concat(node: NodeProto, operands: Operands) -> Vector | None:
    known = [part for part in operands if part is not None]
    return tuple(s for part in known for s in part) if len(known) == len(node.input) else None


def _arithmetic(node: NodeProto, operands: Operands) -> Vector | None:
    left, right = operands
    if left is None or right is None or len(left) != len(right):
        return None
    combine = _COMBINE[node.op_type]
    return tuple(
        combine(a, b) if isinstance(a, int) and isinstance(b, int) and b else None
        for a, b in zip(left, right, strict=True)
    )


_COMBINE: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    # ONNX divides integers towards zero; sizes are not negative, so floor is the same.
    "Div": operator.floordiv,
}

_RULES: dict[str, Callable[[NodeProto, Operands], Vector | None]] = {
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    **dict.fromkeys(("Cast", "Identity", "Unsqueeze", "Squeeze"), _same),
    **dict.fromkeys(_COMBINE, _arithmetic),
}


def _settle(graph: Graph, node: NodeProto, vectors: dict[str, Vector], shapes: Shapes) -> bool:
    """Make this node's shape inputs constant where that is sure; whether anything changed."""
    changed = node.op_type == "Resize" and _resize_by_scale(graph, node, vectors, shapes)
    for position, name in enumerate(node.input):
        elements = vectors.get(name)
        if name in graph.constants or elements is None:
            continue
        value: Array | None = None
        if all(isinstance(e, int) for e in elements):
            value = np.asarray(elements, np.int64)
            if shapes.get(name) == ():
                value = value.reshape(())
        elif node.op_type == "Reshape" and position == 1:
            value = _reshape_target(elements, shapes.get(node.input[0]))
        if value is None:
            continue
        constant = f"{node.output[0]}:shape{position}"
        graph.constants[constant] = value
        node.input[position] = constant
        changed = True
    return changed


def _resize_by_scale(
    graph: Graph, node: NodeProto, vectors: dict[str, Vector], shapes: Shapes
) -> bool:
    """Give a Resize its scales instead of a size computed from the batch."""
    sizes = vectors.get(node.input[3]) if len(node.input) > 3 else None
    source = shapes.get(node.input[0])
    if sizes is None or source is None or len(sizes) != len(source):
        return False
    scales = [
        1.0 if new is not None and new == old else _ratio(new, old)
        for new, old in zip(sizes, source, strict=True)
    ]
    if node.input[3] in graph.constants or None in scales:
        return False
    name = f"{node.output[0]}:scales"
    graph.constants[name] = np.asarray(scales, np.float32)
    node.input[2], node.input[3] = name, ""
    del node.input[3:]
    return True


def _ratio(new: Size, old: Size) -> float | None:
    """The ratio of two sizes if a float holds it exactly, so that no rounding moves a pixel."""
    if not isinstance(new, int) or not isinstance(old, int) or not old:
        return None
    ratio = new / old
    return ratio if (ratio * 1024).is_integer() else None


def _reshape_target(elements: Sequence[Size], source: Vector | None) -> Array | None:
    """Numbers as they are; a size that the input has at the same place is 0, one other is -1."""
    target: list[int] = []
    for position, size in enumerate(elements):
        known = source[position] if source is not None and position < len(source) else None
        if isinstance(size, int):
            target.append(size)
        elif size is not None and size == known:
            target.append(0)
        else:
            target.append(-1)
    if target.count(-1) > 1 or any(s == 0 for s in elements):
        return None
    return np.asarray(target, np.int64)
