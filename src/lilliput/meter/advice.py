"""What would make an explained file faster, in plain sentences, each from a measured fact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lilliput.data.dataset import Array
from lilliput.graph import Graph
from lilliput.meter.cost import Cost
from lilliput.meter.explanation import Explanation
from lilliput.meter.host import cpu_flags, saturates
from lilliput.meter.saturation import can_saturate
from lilliput.onnx_io import read_model
from lilliput.target import Target


def advise(found: Explanation, path: Path, target: Target, cost: Cost) -> Iterator[str]:
    """Sentences, the most useful first; none if nothing stands out."""
    graph = Graph.of(read_model(path))
    quantized = any(node.op_type == "QuantizeLinear" for node in graph.nodes)
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


def _int8_advice(found: Explanation, graph: Graph, *, quantized: bool) -> Iterator[str]:
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


def _saturation_advice(graph: Graph, target: Target) -> Iterator[str]:
    if not saturates(target.isa or cpu_flags()) or _signed_activations(graph):
        return
    stored = [value for value in graph.constants.values() if value.dtype == np.int8]
    wide = [value for value in stored if value.ndim > 1 and can_clip(value)]
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


def can_clip(weights: Array) -> bool:
    """Whether two neighbouring products with a full-range input can exceed 16 bits.

    Kernels sum in the order (height, width, input channel), two by two. A matrix may be stored
    either way round: it can clip if it does both ways.
    """
    if weights.ndim == 2:
        return bool(can_saturate(weights).any() and can_saturate(weights.T).any())
    return bool(can_saturate(np.moveaxis(weights, 1, -1).reshape(len(weights), -1)).any())


def _signed_activations(graph: Graph) -> bool:
    """Whether an activation (not a weight) is quantized to signed 8 bits."""
    zeros = [n.input[2] for n in graph.nodes if n.op_type == "QuantizeLinear" and n.input[2:]]
    return any(graph.constants[name].dtype == np.int8 for name in zeros if name in graph.constants)
