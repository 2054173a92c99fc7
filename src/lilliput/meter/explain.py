"""Why is this file not faster: where its time goes, what runs in int8, what would help."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lilliput.data.dataset import Array
from lilliput.errors import Refused
from lilliput.graph import Graph
from lilliput.meter.advice import advise
from lilliput.meter.cost import Cost, file_cost
from lilliput.meter.coverage import OPENVINO_WEIGHTED, Origins, coverage
from lilliput.meter.explanation import Explanation, OffGrid, OperatorShare
from lilliput.meter.widths import WidthProfile
from lilliput.onnx_io import as_onnx, read_model
from lilliput.runtimes.base import RUNTIMES, NodeTime
from lilliput.runtimes.opening import check_can_open, open_session, random_feeds
from lilliput.target import Target

BOUNDARY_OPS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Transpose", "Reorder", "ReorderInput", "ReorderOutput"}
)


def explain(
    path: Path | str,
    target: Target,
    feeds: Sequence[Array] | None = None,
    *,
    widths: WidthProfile | None = None,
) -> Explanation:
    """Profile a file and say in words what holds it back.

    Args:
        path: An ONNX file.
        target: Where it is to run; the runtime must be able to profile.
        feeds: Inputs; random ones if None.
        widths: The target's width profile, to name layers off its grid; None leaves that out.

    Raises:
        Refused: The runtime reports no times per operator.
    """
    path = Path(path)
    return explained(path, target, profiled(path, target, feeds), widths=widths)


def profiled(
    path: Path, target: Target, feeds: Sequence[Array] | None = None
) -> Sequence[NodeTime]:
    """The time of every operator, weighted layers under the file's own names.

    Raises:
        Refused: The runtime reports no times per operator.
    """
    runtime = RUNTIMES[target.runtime]
    check_can_open(runtime, path, target)
    if feeds is None:
        session = open_session(path, target)
        feeds = random_feeds(session.inputs)
        session.close()
    with as_onnx(path) as plain:
        nodes = runtime.profile(plain, target, feeds)
    if not nodes:
        raise Refused(
            f"the runtime {target.runtime} reports no times per operator",
            hint="explain the file on onnxruntime or openvino",
        )
    return _renamed(path, nodes)


def explained(
    path: Path, target: Target, nodes: Sequence[NodeTime], *, widths: WidthProfile | None
) -> Explanation:
    """The explanation of a profile that was already taken."""
    total = sum(node.seconds for node in nodes) or 1e-12
    cost, covered = file_cost(path), coverage(path, target)
    moved = sum(layer.bytes_moved for layer in cost.layers)
    found = Explanation(
        file=path.name,
        target=target.label,
        seconds=total,
        operators=by_operator(nodes, total),
        slowest=tuple(nodes[:10]),
        int8_share=sum(n.seconds for n in nodes if _computes_int8(n)) / total,
        boundary_share=sum(n.seconds for n in nodes if n.op in BOUNDARY_OPS) / total,
        coverage=covered,
        float_islands=covered.floats if covered.quantized else (),
        off_grid=_off_grid(cost, widths) if widths is not None else (),
        macs=cost.macs,
        macs_per_byte=sum(layer.macs for layer in cost.layers) / moved if moved else 0.0,
        intensity=intensity_class(cost, operators=len(nodes)),
    )
    return found.model_copy(update={"advice": tuple(advise(found, path, target, cost))})


def intensity_class(cost: Cost, *, operators: int) -> str:
    """What bounds a network of this shape on a CPU: "overhead", "memory" or "compute".

    An operator costs its start (under a microsecond) however little it does, which is some 50 000
    multiply-adds of one core; and a core moves a byte in the time of several multiply-adds.
    """
    macs = sum(layer.macs for layer in cost.layers)
    moved = sum(layer.bytes_moved for layer in cost.layers)
    if macs < 50_000 * max(operators, 1):
        return "overhead"
    return "memory" if macs < 8.0 * moved else "compute"


def by_operator(nodes: Sequence[NodeTime], total: float) -> tuple[OperatorShare, ...]:
    """The operators by type and precision, the one that takes most of `total` seconds first."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for node in nodes:
        groups[node.op, node.precision].append(node.seconds)
    shares = [
        OperatorShare(
            op=op,
            precision=precision,
            count=len(seconds),
            seconds=sum(seconds),
            share=sum(seconds) / total,
        )
        for (op, precision), seconds in groups.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.seconds))


def _computes_int8(node: NodeTime) -> bool:
    return node.precision == "int8" and node.op not in BOUNDARY_OPS


def _off_grid(cost: Cost, widths: WidthProfile) -> tuple[OffGrid, ...]:
    kinds = {
        "conv3x3": "conv3x3",
        "conv1x1": "conv1x1",
        "depthwise3x3": "depthwise",
        "grouped3x3": "grouped",
    }
    found = []
    for layer in cost.layers:
        kind = kinds.get(layer.kind)
        if kind is None or f"{kind}/{layer.precision}" not in widths.table:
            continue
        parts = layer.groups if kind == "grouped" else 1
        better = parts * widths.round(layer.outputs // parts, kind, layer.precision)
        if better > layer.outputs:
            entry = OffGrid(layer=layer.name, kind=layer.kind, width=layer.outputs, better=better)
            found.append(entry)
    return tuple(found)


def _renamed(path: Path, nodes: Sequence[NodeTime]) -> list[NodeTime]:
    """The profile with the file's own names for its weighted layers."""
    origins = Origins(Graph.of(read_model(path)))
    weighted = {"QLinearConv", "Conv", "FusedConv", "Gemm", "QGemm", "MatMul", "QLinearMatMul"}
    return [
        node.model_copy(update={"name": origins.of(node.name)})
        if node.op in weighted | OPENVINO_WEIGHTED
        else node
        for node in nodes
    ]
