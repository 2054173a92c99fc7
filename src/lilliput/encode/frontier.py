"""Inner tensors of a graph over all calibration batches, computed piece by piece.

Fitting goes through the layers in order and needs each layer's input once. Running the whole
graph up to every layer would cost the square of the depth; here each piece starts from the inputs
of the layers before it, which lie on disk, so that memory does not grow with the pictures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.execute import Execution, Feeds
from lilliput.encode.layers import Layer
from lilliput.graph import Graph
from lilliput.graph.model import needs

if TYPE_CHECKING:
    import onnx


class Frontier:
    """Stored tensors of one (changing) model; `close` removes its files.

    Only layers that were passed may change between two calls of `advance`.
    """

    def __init__(
        self, graph: Graph, layers: Sequence[Layer], feeds: Feeds, *, threads: int
    ) -> None:
        self.feeds, self.threads = feeds, threads
        self.inputs = graph.input_names
        self.last_use = _last_uses(graph, layers)
        self._folder = tempfile.TemporaryDirectory(prefix="lilliput-fit-")
        self._stored: dict[str, int] = {}
        self._count = self._batches = 0

    def close(self) -> None:
        self._folder.cleanup()

    def advance(self, model: onnx.ModelProto, tensor: str) -> None:
        """Compute `tensor` of the model for every batch, from what is stored."""
        if tensor in self._stored or tensor in self.inputs:
            return
        part, starts = _piece(Graph.of(model), tensor, [*self._stored, *self.inputs])
        execution = Execution(part, [tensor], threads=self.threads)
        self._count += 1
        self._batches = 0
        for number, batch in enumerate(self.feeds()):
            given = dict(zip(self.inputs, batch, strict=True))
            fed = tuple(
                given[name] if name in given else np.load(self._path(name, number))
                for name in starts
            )
            np.save(self._file(self._count, number), execution.run(fed)[tensor])
            self._batches += 1
        self._stored[tensor] = self._count

    def values(self, tensor: str) -> Iterator[Array]:
        """The tensor, batch by batch."""
        if tensor in self.inputs:
            yield from (batch[self.inputs.index(tensor)] for batch in self.feeds())
            return
        for number in range(self._batches):
            yield np.load(self._path(tensor, number))

    def forget(self, tensor: str) -> None:
        """Have the tensor computed anew when it is asked for again."""
        if tensor in self._stored:
            for number in range(self._batches):
                self._path(tensor, number).unlink()
            del self._stored[tensor]

    def passed(self, layer: int) -> None:
        """Forget what no layer after this one needs."""
        for tensor in [t for t in self._stored if self.last_use.get(t, -1) <= layer]:
            self.forget(tensor)

    def _path(self, tensor: str, batch: int) -> Path:
        return self._file(self._stored[tensor], batch)

    def _file(self, tensor: int, batch: int) -> Path:
        return Path(self._folder.name) / f"{tensor}-{batch}.npy"


def _walk(graph: Graph, tensor: str, stops: Sequence[str]) -> tuple[list[str], list[str]]:
    """(nodes that compute the tensor, where they start), going back no further than `stops`."""
    halts, nodes, starts, seen = set(stops), [], [], set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        maker = graph.producers.get(name)
        if name in seen:
            continue
        seen.add(name)
        if name in halts and name != tensor:
            starts.append(name)
        elif maker is not None:
            nodes.append(maker.name)
            waiting.extend(needs(maker))
    return nodes, starts


def _piece(graph: Graph, tensor: str, stops: Sequence[str]) -> tuple[onnx.ModelProto, list[str]]:
    from onnx import TensorProto, helper

    nodes, starts = _walk(graph, tensor, stops)
    kinds = {value.name: value for value in graph.inputs}
    graph.inputs = [
        kinds.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in starts
    ]
    graph.nodes = [node for node in graph.nodes if node.name in set(nodes)]
    graph.outputs = [helper.make_empty_tensor_value_info(tensor)]
    return graph.model(), starts


def _last_uses(graph: Graph, layers: Sequence[Layer]) -> dict[str, int]:
    """{layer input: index of the last layer whose piece starts from it or that reads it}."""
    last: dict[str, int] = {}
    known: list[str] = list(graph.input_names)
    for index, layer in enumerate(layers):
        if layer.input not in known:
            for start in _walk(graph, layer.input, known)[1]:
                last[start] = index
            known.append(layer.input)
        last[layer.input] = index
    return last
