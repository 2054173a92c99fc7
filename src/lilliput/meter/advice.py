"""What would make an explained file faster, in plain sentences, each from a measured fact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lilliput.meter.cost import Cost
from lilliput.meter.host import cpu_flags, saturates
from lilliput.onnx_io import read_model
from lilliput.target import Target

if TYPE_CHECKING:
    import onnx

    from lilliput.meter.explain import Explanation


def advise(found: Explanation, path: Path, target: Target, cost: Cost) -> Iterator[str]:
    """Sentences, the most useful first; none if nothing stands out."""
    graph = read_model(path).graph
    quantized = any(node.op_type == "QuantizeLinear" for node in graph.node)
    yield from _int8_advice(found, graph, quantized=quantized)
    yield from _saturation_advice(graph, target)
    yield from _depthwise_advice(found, cost, target)
    if found.boundary_share > 0.15:
        yield (
            f"{found.boundary_share:.0%} of the time goes into quantizing, dequantizing and layout "
            "changes: quantize neighbouring layers together, or leave small ones in float"
        )
    if found.off_grid:
        worst = found.off_grid[0]
        yield (
            f"{len(found.off_grid)} layers have widths off this target's grid ({worst.layer}: "
            f"{worst.width} channels cost what {worst.better} do): prune to the grid"
        )
    if found.intensity == "overhead":
        yield (
            "the operators are so small that starting them costs as much as their work: fewer "
            "layers will help, narrower ones or int8 will not"
        )
    elif found.intensity == "memory" and not quantized:
        yield (
            "few multiply-adds to a byte: smaller activations (resolution, int8) help more than "
            "fewer multiply-adds"
        )


def _int8_advice(found: Explanation, graph: onnx.GraphProto, *, quantized: bool) -> Iterator[str]:
    if not quantized and not found.coverage.quantized:
        if found.intensity == "compute":
            yield "all layers run in float: `quantize` usually halves the time of such a network"
        return
    if found.coverage.floats:
        names = ", ".join(found.coverage.floats[:3])
        more = len(found.coverage.floats) - 3
        yield (
            f"{len(found.coverage.floats)} of {found.coverage.total} weighted layers run in float "
            f"although the file is quantized ({names}{f' and {more} more' if more > 0 else ''}): "
            "each pays for conversions around it"
        )
    if _signed_activations(graph):
        yield (
            "activations are signed 8-bit, which is slow on x86 in onnxruntime: quantize them "
            "unsigned (U8S8)"
        )


def _saturation_advice(graph: onnx.GraphProto, target: Target) -> Iterator[str]:
    if not saturates(target.isa or cpu_flags()) or _signed_activations(graph):
        return
    wide = [name for name, values in _int8_weights(graph) if can_clip(values)]
    if wide:
        yield (
            f"{len(wide)} layers have 8-bit weights, and this CPU adds products in 16 bits, which "
            "clip: outputs may be wrong without a message; quantize for this target"
        )


def _depthwise_advice(found: Explanation, cost: Cost, target: Target) -> Iterator[str]:
    depthwise = {
        layer.name
        for layer in cost.layers
        if layer.kind.startswith("depthwise") and layer.name in found.coverage.quantized
    }
    if depthwise and target.runtime == "onnxruntime":
        yield (
            f"{len(depthwise)} depthwise layers run in int8, which is slower than float in "
            "onnxruntime: leave depthwise in float"
        )


def can_clip(weights: np.ndarray[Any, np.dtype[np.int32]]) -> bool:
    """Whether two neighbouring products with a full-range input can exceed 16 bits.

    Kernels sum in the order (height, width, input channel), two by two. A matrix may be stored
    either way round: it can clip if it does both ways.
    """
    if weights.ndim == 2:
        return _pair_clips(weights) and _pair_clips(weights.T)
    return _pair_clips(np.moveaxis(weights, 1, -1).reshape(len(weights), -1))


def _pair_clips(rows: np.ndarray[Any, np.dtype[np.int32]]) -> bool:
    even = rows[:, : rows.shape[1] // 2 * 2]
    pairs = even.reshape(len(rows), -1, 2)
    most, least = np.maximum(pairs, 0).sum(-1), np.minimum(pairs, 0).sum(-1)
    return bool((255 * most > 32767).any() or (255 * least < -32768).any())


def _signed_activations(graph: onnx.GraphProto) -> bool:
    """Whether an activation (not a weight) is quantized to signed 8 bits."""
    import onnx

    signed = {
        tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8
    }
    return any(
        node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2] in signed
        for node in graph.node
    )


def _int8_weights(
    graph: onnx.GraphProto,
) -> Iterator[tuple[str, np.ndarray[tuple[int, ...], np.dtype[np.int32]]]]:
    """(name, values) of the stored signed 8-bit weights."""
    import onnx
    from onnx import numpy_helper

    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1:
            yield tensor.name, numpy_helper.to_array(tensor).astype(np.int32)
