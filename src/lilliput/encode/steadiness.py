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
    """Every other example of each batch; every other batch where the graph takes no smaller one."""
    sizes = [len(given[0]) for given in feeds()]
    first = graph.model().graph.input[0].type.tensor_type.shape.dim[0]
    whole = first.HasField("dim_value") or max(sizes) < 2
    if len(sizes) < 2 and whole:
        return None

    def half(which: int) -> Feeds:
        def batches() -> Iterator[tuple[Array, ...]]:
            for number, given in enumerate(feeds()):
                if not whole and len(given[0]) > 1:
                    yield tuple(x[which::2] for x in given)
                elif whole and number % 2 == which and number < len(sizes) // 2 * 2:
                    yield given

        return batches

    return half(0), half(1)
