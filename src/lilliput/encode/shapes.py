"""Sizes of inner tensors, as far as shape inference knows them."""

from __future__ import annotations

from lilliput.encode.graph import Graph


def shapes(graph: Graph) -> dict[str, tuple[int | None, ...]]:
    """{tensor: shape}, None for free sizes; tensors of unknown rank are left out."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    found: dict[str, tuple[int | None, ...]] = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            found[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim
            )
    return found


def channel_counts(graph: Graph) -> dict[str, int]:
    """{tensor: size of axis 1} of the tensors with two or more axes whose size is known."""
    return {
        name: shape[1]
        for name, shape in shapes(graph).items()
        if len(shape) >= 2 and shape[1] is not None
    }
