"""Which layers lose most by int8, measured one at a time on the network's own output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lilliput.encode.execute import Execution, Feeds, relative_error
from lilliput.encode.layers import Layer
from lilliput.encode.placement import place
from lilliput.encode.qdq import Encoding, write_qdq
from lilliput.graph import Graph


@dataclass(frozen=True)
class Sensitivity:
    """The relative output error when this layer alone runs in int8, the rest in float."""

    node: str
    path: str
    error: float


def layer_sensitivities(
    graph: Graph,
    encoding: Encoding,
    feeds: Feeds,
    *,
    threads: int = 1,
    each: Callable[[Sequence[Layer]], Iterable[Layer]] = iter,
) -> list[Sensitivity]:
    """Every int8 layer with its error, the worst first (ties in the order of the graph).

    Args:
        graph: The prepared float graph that `encoding` belongs to.
        encoding: Scales and integers; layers without them are not asked about.
        feeds: A few batches.
        threads: Of the runtime.
        each: Wraps the loop (a progress bar).
    """
    reference = Execution(graph.model(), threads=threads)
    whole = place(graph)
    layers = [x for x in whole.layers if whole.tensors[x.input] in encoding.activations]
    # Alone, a layer may read a tensor that otherwise shares the scale of another.
    shared = {
        t: encoding.activations[root]
        for t, root in whole.tensors.items()
        if root in encoding.activations
    }
    alone_encoding = replace(encoding, activations=shared)
    found = []
    for layer in each(layers):
        others = {x.node: "measured alone" for x in whole.layers if x.node != layer.node}
        placement = place(graph, others)
        alone = Execution(write_qdq(graph, placement, alone_encoding), threads=threads)
        error = relative_error(alone, reference, feeds)
        found.append(Sensitivity(layer.node, layer.path, error))
    return sorted(found, key=lambda s: -s.error)
