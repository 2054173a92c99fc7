"""An int8 file that has the right shape and speed, and whose numbers mean nothing.

What an int8 network costs on a target does not depend on its scales. A search that asks for the
price of many untrained architectures needs no calibration to learn it.
"""

from __future__ import annotations

from pathlib import Path

from lilliput.encode.integers import (
    Affine,
    from_rows,
    round_rows,
    row_scales,
    to_rows,
    weight_limit,
)
from lilliput.encode.placement import place
from lilliput.encode.prepare import prepare
from lilliput.encode.qdq import Encoding, Integers, write_qdq
from lilliput.graph import Graph
from lilliput.onnx_io import read_model, write_model

RANGE = 8.0
"""Any range that is not tiny serves."""


def coarse_int8(source: Path, path: Path) -> Path:
    """Write the int8 form of the float file `source` to `path`; returns `path`.

    Raises:
        Refused: no layer of it would run in int8.
    """
    graph = Graph.of(prepare(read_model(source)).model)
    placement = place(graph)
    affine = Affine.of_range(-RANGE, RANGE)
    weights = {}
    for layer in placement.layers:
        weight = graph.weights(layer.weight)
        rows = to_rows(weight, layer.axis)
        scales = row_scales(rows, weight_limit(7))
        values = from_rows(round_rows(rows, scales, weight_limit(7)), weight.shape, layer.axis)
        weights[layer.weight] = Integers(values, scales, layer.axis)
    activations = dict.fromkeys(placement.representatives, affine)
    write_model(write_qdq(graph, placement, Encoding(activations, weights)), path)
    return path
