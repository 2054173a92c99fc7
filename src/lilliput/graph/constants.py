"""What can be computed once, before any input is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import Array
from lilliput.graph.model import STANDARD, Graph
from lilliput.onnx_io import inner_graphs
from lilliput.runtimes.quiet import quiet_telemetry

if TYPE_CHECKING:
    from onnx import NodeProto

GROWTH_BYTES = 1 << 16
"""A constant may grow by this much when it is computed ahead; `Expand` of a scalar may not."""

NEVER_FOLDED = frozenset(
    (
        *("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Bernoulli", "Multinomial"),
    )
)


def fold_constants(graph: Graph) -> None:
    """Compute every node whose inputs are all constant, unless the result is much larger.

    Outputs of the graph stay outputs of a node, and so does whatever cannot be computed.
    """
    barred: set[int] = set()
    while ready := _ready(graph, barred):
        values = _computed(graph, ready)
        folded = []
        for node in ready:
            made = [name for name in node.output if name]
            known = all(name in graph.constants for name in node.input if name)
            if known and all(name in values for name in made) and _small(graph, node, values):
                graph.constants |= {name: values[name] for name in made}
                folded.append(node)
            else:
                barred.add(id(node))
        graph.drop(folded)


def known_ahead(graph: Graph) -> set[str]:
    """Values that follow from constants alone; a runtime computes them when it loads the file.

    int8 weights behind a `DequantizeLinear` are not among them: runtimes keep those integers.
    """
    known = set(graph.constants)
    made: set[str] = set()
    for node in graph.nodes:
        inputs = [name for name in node.input if name]
        if inputs and node.op_type not in NEVER_FOLDED and known.issuperset(inputs):
            made.update(node.output)
            known.update(node.output)
    return made


def _ready(graph: Graph, barred: set[int]) -> list[NodeProto]:
    """The nodes that follow from constants; the size of what they make is bounded beforehand."""
    known = set(graph.constants)
    ready = []
    for node in graph.nodes:
        if id(node) in barred or not all(name in known for name in node.input if name):
            continue
        if _foldable(graph, node) and _bounded(node, graph.constants):
            ready.append(node)
            known.update(node.output)
    return ready


def _foldable(graph: Graph, node: NodeProto) -> bool:
    if node.domain not in STANDARD or node.op_type in NEVER_FOLDED or inner_graphs([node]):
        return False
    if node.op_type == "Dropout" and not inert(graph, node):
        return False
    return not set(node.output) & set(graph.output_names)


def inert(graph: Graph, dropout: NodeProto) -> bool:
    """Whether a Dropout drops nothing: it is told so beforehand, or not told to train."""
    training = dropout.input[2] if len(dropout.input) > 2 else ""
    return not training or not graph.constants.get(training, np.True_).any()


def _bounded(node: NodeProto, constants: Mapping[str, Array]) -> bool:
    """Whether the size that the node's values ask for is small; a bad file may ask for terabytes.

    Where the values are still to be computed the answer is no: the next round knows them.
    """
    if node.op_type not in ("ConstantOfShape", "Expand", "Tile"):
        return True
    values = [constants.get(name) for name in node.input]
    if any(value is None for value in values):
        return False
    *source, sizes = (np.asarray(value) for value in values)
    elements = float(np.prod(np.maximum(sizes.astype(np.float64), 1)))
    if node.op_type == "Tile":
        elements *= source[0].size
    if node.op_type == "Expand":
        elements = max(elements, _expanded(source[0].shape, sizes.ravel().tolist()))
    return elements <= GROWTH_BYTES + sum(part.size for part in source)


def _expanded(shape: Sequence[int], sizes: Sequence[int]) -> float:
    """Elements of a tensor that is expanded to `sizes`, where its own may be larger."""
    longest = max(len(shape), len(sizes))
    padded = ([1] * (longest - len(part)) + list(part) for part in (shape, sizes))
    return float(np.prod([float(max(a, b)) for a, b in zip(*padded, strict=True)]))


def _small(graph: Graph, node: NodeProto, values: Mapping[str, Array]) -> bool:
    before = sum(graph.constants[name].nbytes for name in node.input if name)
    after = sum(values[name].nbytes for name in node.output if name)
    return after <= before + GROWTH_BYTES


def _computed(graph: Graph, nodes: Sequence[NodeProto]) -> dict[str, Array]:
    """{value: array}, all at once; one by one where some node cannot be computed."""
    values: dict[str, Array] = {}
    with suppress(Exception):
        return _run(graph, nodes, graph.constants)
    for node in nodes:
        with suppress(Exception):  # whatever the runtime lacks stays a node, as it was
            values |= _run(graph, [node], {**graph.constants, **values})
    return values


def _run(
    graph: Graph, nodes: Sequence[NodeProto], constants: Mapping[str, Array]
) -> dict[str, Array]:
    from onnx import helper

    quiet_telemetry()
    import onnxruntime as ort

    names = [name for node in nodes for name in node.output if name]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    model = Graph(graph.frame, list(nodes), dict(constants), [], outputs).model()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    made = zip(names, session.run(names, {}), strict=True)
    return {name: value for name, value in made if isinstance(value, np.ndarray)}  # no sequences
