"""Whether the calibration examples are enough: do two halves of them give the same ranges?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.execute import Feeds
from lilliput.encode.outcome import State
from lilliput.encode.ranges import observe
from lilliput.graph import Graph

UNSTEADY = 0.2
"""A wrong width of a range by a fifth costs a quarter of a bit, or clips as much."""


def unsteadiness(state: State, feeds: Feeds, *, threads: int = 1) -> float:
    """How far apart the ranges of two halves of the examples are: 0 (equal) to 1.

    The median over the int8 tensors of the difference of their widths, minimum to maximum,
    relative to the wider one. 0 where the examples cannot be parted.
    """
    names = [name for name in state.placement.representatives if name != state.pixels]
    parts = _halves(state.graph, feeds)
    if parts is None or not names:
        return 0.0
    first, second = (observe(state.graph, names, part, threads=threads) for part in parts)
    gaps = []
    for name in names:
        widths = [found[name].high - found[name].low for found in (first, second)]
        gaps.append(abs(widths[0] - widths[1]) / max(*widths, 1e-30))
    return float(np.median(gaps))


def _halves(graph: Graph, feeds: Feeds) -> tuple[Feeds, Feeds] | None:
    """Every other batch; of a single one, every other example if the graph takes so few."""
    count = sum(1 for _ in feeds())
    batch = graph.model().graph.input[0].type.tensor_type.shape.dim[0]
    if count == 1 and (batch.HasField("dim_value") or len(next(iter(feeds()))[0]) < 2):
        return None

    def half(which: int) -> Feeds:
        def batches() -> Iterator[tuple[Array, ...]]:
            for number, given in enumerate(feeds()):
                if count == 1:
                    yield tuple(x[which::2] for x in given)
                elif number % 2 == which:
                    yield given

        return batches

    return half(0), half(1)
