"""What can be computed once, at export."""

from __future__ import annotations

from onnx import NodeProto, helper

from lilliput.data.dataset import Array
from lilliput.export.graph import Graph
from lilliput.runtimes.quiet import quiet_telemetry

GROWTH_BYTES = 1 << 16
"""A constant may grow by this much when it is computed ahead; `Expand` of a scalar may not."""

NEVER_FOLDED = {"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan"}


def fold_constants(graph: Graph) -> None:
    """Compute every node whose inputs are all constant, unless the result is much larger."""
    known = set(graph.constants)
    ready: list[NodeProto] = []
    for node in graph.nodes:
        if _foldable(node, known):
            ready.append(node)
            known.update(node.output)
    if not ready:
        return
    values = _evaluate(graph, ready)
    folded = []
    for node in ready:
        if all(n in graph.constants or not n for n in node.input) and _small(graph, node, values):
            graph.constants |= {name: values[name] for name in node.output if name}
            folded.append(node)
    graph.drop(folded)


def _foldable(node: NodeProto, known: set[str]) -> bool:
    if node.op_type in NEVER_FOLDED or node.op_type.startswith("Random") or node.domain:
        return False
    return all(name in known or not name for name in node.input)


def _small(graph: Graph, node: NodeProto, values: dict[str, Array]) -> bool:
    before = sum(graph.constants[n].nbytes for n in node.input if n)
    after = sum(values[n].nbytes for n in node.output if n)
    return after <= before + GROWTH_BYTES


def _evaluate(graph: Graph, nodes: list[NodeProto]) -> dict[str, Array]:
    quiet_telemetry()
    import onnxruntime as ort

    outputs = [name for node in nodes for name in node.output if name]
    used = {name for node in nodes for name in node.input}
    part = Graph(
        nodes=nodes,
        constants={k: v for k, v in graph.constants.items() if k in used},
        inputs=[],
        outputs=[helper.make_empty_tensor_value_info(name) for name in outputs],
        opset=graph.opset,
        ir_version=graph.ir_version,
    )
    model = part.model()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(outputs, session.run(outputs, {}), strict=True))
