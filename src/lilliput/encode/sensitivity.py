"""Which layers lose most by int8: each alone, and what is left when the worst return to float.

Measured on the network's own output, and on its metric where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lilliput.encode.execute import Execution, Feeds, relative_error
from lilliput.encode.integers import Affine
from lilliput.encode.layers import Layer
from lilliput.encode.placement import place
from lilliput.encode.qdq import Encoding, write_qdq
from lilliput.graph import Graph
from lilliput.runs.cache import Collect, collected

if TYPE_CHECKING:
    import onnx

    Drop = Callable[[onnx.ModelProto], float]


@dataclass(frozen=True)
class Sensitivity:
    """What is lost when this layer alone runs in int8, the rest in float.

    `error` is the relative output error; `drop` is of the metric, in its unit, None unless asked
    for.
    """

    node: str
    path: str
    error: float
    drop: float | None = None


@dataclass(frozen=True)
class PutBack:
    """What is lost with `count` layers in float and the others in int8.

    `path` is the layer that returned last, "" where none did.
    """

    count: int
    path: str
    error: float
    drop: float | None = None


class Mixture:
    """All models of one network in which some layers run in int8 and the others in float.

    They share the numbers of one encoding, so that they differ in nothing else.
    """

    def __init__(self, graph: Graph, encoding: Encoding) -> None:
        whole = place(graph)
        self.graph = graph
        # Alone, a layer may read a tensor that otherwise shares the scale of another.
        shared = {
            tensor: encoding.activations[root]
            for tensor, root in whole.tensors.items()
            if root in encoding.activations
        }
        self.layers = tuple(
            layer
            for layer in whole.layers
            if layer.input in shared and layer.weight in encoding.weights
        )
        self.encoding = replace(encoding, activations=shared)
        self._weighted = tuple(layer.node for layer in whole.layers)

    def affine(self, layer: Layer) -> Affine:
        """The map to integers of what the layer reads."""
        return self.encoding.activations[layer.input]

    def model(self, int8: Collection[str]) -> onnx.ModelProto:
        """The model in which these layers, by the names of their nodes, run in int8."""
        if not int8:
            return self.graph.model()
        floats = {node: "in float here" for node in self._weighted if node not in int8}
        return write_qdq(self.graph, place(self.graph, floats), self.encoding)


@dataclass(frozen=True)
class Judge:
    """Takes the figures of a model beside the float one, over the same batches."""

    reference: Execution
    feeds: Feeds
    drop: Drop | None = None
    threads: int = 1

    def __call__(self, mixture: Mixture, int8: Collection[str]) -> dict[str, Any]:
        """{"error", "drop"} with these layers in int8."""
        model = mixture.model(int8)
        ours = Execution(model, threads=self.threads)
        error = relative_error(ours, self.reference, self.feeds)
        return {"error": error, "drop": None if self.drop is None else self.drop(model)}


def judge_of(graph: Graph, feeds: Feeds, *, drop: Drop | None = None, threads: int = 1) -> Judge:
    """A judge that compares with this float graph."""
    return Judge(Execution(graph.model(), threads=threads), feeds, drop, threads)


def layer_sensitivities(
    graph: Graph,
    encoding: Encoding,
    feeds: Feeds,
    *,
    drop: Drop | None = None,
    threads: int = 1,
    collect: Collect = collected,
) -> list[Sensitivity]:
    """Every int8 layer with what it loses alone, the worst first (ties in the order of the graph).

    Args:
        graph: The prepared float graph that `encoding` belongs to.
        encoding: Scales and integers; layers without them are not asked about.
        feeds: A few batches.
        drop: What a model loses of the metric.
        threads: Of the runtime.
        collect: Does the work, one piece a layer (a progress bar, a cache).
    """
    judge = judge_of(graph, feeds, drop=drop, threads=threads)
    mixture = Mixture(graph, encoding)
    work = {f"alone {x.node}": partial(judge, mixture, {x.node}) for x in mixture.layers}
    figures = collect("one layer in int8", work).values()
    found = [
        Sensitivity(layer.node, layer.path, **told)
        for layer, told in zip(mixture.layers, figures, strict=True)
    ]
    return sorted(found, key=lambda s: -s.error)


def put_back(
    graph: Graph,
    encoding: Encoding,
    order: Sequence[Sensitivity],
    feeds: Feeds,
    *,
    drop: Drop | None = None,
    threads: int = 1,
    collect: Collect = collected,
) -> list[PutBack]:
    """What is left to lose as layers return to float, from all in int8 to all in float.

    Args:
        graph: The prepared float graph that `encoding` belongs to.
        encoding: Scales and integers.
        order: In which the layers return; of `layer_sensitivities`.
        feeds: A few batches.
        drop: What a model loses of the metric.
        threads: Of the runtime.
        collect: Does the work, one piece a point of the curve.
    """
    judge = judge_of(graph, feeds, drop=drop, threads=threads)
    mixture = Mixture(graph, encoding)
    counts = put_back_counts(len(order))
    work = {
        f"{count} in float": partial(judge, mixture, {x.node for x in order[count:]})
        for count in counts
    }
    figures = collect("layers put back into float", work).values()
    return [
        PutBack(count, order[count - 1].path if count else "", **told)
        for count, told in zip(counts, figures, strict=True)
    ]


def put_back_counts(layers: int) -> list[int]:
    """How many layers are in float at the points of the curve: 0, 1, 2, 3, 5, 8, ... and all.

    >>> put_back_counts(11)
    [0, 1, 2, 3, 5, 8, 11]
    """
    counts = [0, 1]
    while counts[-1] < layers:
        counts.append(counts[-1] + max(counts[-2], 1))
    return [count for count in counts if count < layers] + [layers]
