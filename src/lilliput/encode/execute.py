"""Runs float and int8 graphs over batches, one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lilliput.data.dataset import Array
from lilliput.errors import LilliputError, Refused
from lilliput.graph import Graph
from lilliput.runtimes.quiet import quiet_telemetry

if TYPE_CHECKING:
    import onnx

Feeds = Callable[[], Iterator[tuple[Array, ...]]]
"""Gives the same batches each time it is called: tuples in the order of the model's inputs."""


class Runs(Protocol):
    """Whatever gives named outputs for a batch."""

    def run(self, batch: tuple[Array, ...]) -> Mapping[str, Array]: ...


class Execution:
    """A model loaded in ONNX Runtime that also shows inner tensors.

    `threads` are ORT's; results do not depend on them. Inner tensors are computed as the graph
    says, operators around them are not fused away.
    """

    def __init__(
        self, model: onnx.ModelProto, show: Sequence[str] = (), *, threads: int = 1
    ) -> None:
        from onnx import helper

        quiet_telemetry()
        import onnxruntime

        graph = Graph.of(model)
        self.inputs = graph.input_names
        shown = tuple(dict.fromkeys(show or graph.output_names))
        self._given = {name: self.inputs.index(name) for name in shown if name in self.inputs}
        self._asked = [name for name in shown if name not in self._given]
        self.shown = shown
        if show:
            graph.outputs = [helper.make_empty_tensor_value_info(name) for name in self._asked]
            graph.prune()
        _unshare(graph)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Exact sums on every CPU: what a file does to a CPU that saturates is judged elsewhere.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = None
        if self._asked:
            try:
                self._session = onnxruntime.InferenceSession(
                    graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # the library raises a dozen private types
                raise Refused(
                    f"ONNX Runtime cannot load the graph ({error})",
                    hint="check the file with `onnx.checker.check_model`",
                ) from error
            self._fed = {value.name for value in self._session.get_inputs()}

    def run(self, batch: tuple[Array, ...]) -> dict[str, Array]:
        """{shown tensor: value} for one batch."""
        if len(batch) != len(self.inputs):
            raise LilliputError(
                f"the model takes {len(self.inputs)} inputs ({', '.join(self.inputs)}) and the "
                f"data gives {len(batch)}",
                hint="give one array per input, in that order",
            )
        values: dict[str, Array] = {name: batch[index] for name, index in self._given.items()}
        if self._session is not None:
            named = dict(zip(self.inputs, batch, strict=True))
            named = {name: value for name, value in named.items() if name in self._fed}
            values.update(zip(self._asked, self._session.run(self._asked, named), strict=True))
        return values

    def over(self, feeds: Feeds) -> Iterator[dict[str, Array]]:
        """`run` on every batch."""
        for batch in feeds():
            yield self.run(batch)


def _unshare(graph: Graph) -> None:
    """Give each reader of an int8 weight a copy of its own.

    The exact-sums switch rewrites weights in place, and ORT 1.32 stumbles over one that several
    layers share.
    """
    for name in [name for name, value in graph.constants.items() if value.dtype == np.int8]:
        for number, node in enumerate(graph.readers.get(name, [])[1:]):
            copy = graph.fresh(f"{name}_{number}")
            graph.constants[copy] = graph.constants[name]
            for position, source in enumerate(node.input):
                if source == name:
                    node.input[position] = copy


def relative_error(ours: Runs, reference: Runs, feeds: Feeds) -> float:
    """‖ours − reference‖ / ‖reference‖ over all outputs and batches, streaming.

    Only float outputs count; they are weighed by their own size.
    """
    difference = size = 0.0
    for batch in feeds():
        a, b = ours.run(batch), reference.run(batch)
        for name, theirs in b.items():
            if np.issubdtype(theirs.dtype, np.floating):
                gap = a[name].astype(np.float64) - theirs
                difference += float(np.vdot(gap, gap))
                size += float(np.vdot(theirs, theirs.astype(np.float64)))
    return float(np.sqrt(difference / size)) if size > 0 else float(np.sqrt(difference))


def chain(first: Feeds, second: Feeds) -> Feeds:
    """The batches of both, one after the other."""

    def both() -> Iterator[tuple[Array, ...]]:
        yield from first()
        yield from second()

    return both


def head(feeds: Feeds, count: int) -> Feeds:
    """The first `count` batches of the feeds."""

    def first() -> Iterator[tuple[Array, ...]]:
        for number, batch in enumerate(feeds()):
            if number >= count:
                return
            yield batch

    return first
