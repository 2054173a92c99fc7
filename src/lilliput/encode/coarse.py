"""An int8 file that has the right shape and speed, and whose numbers mean nothing.

What an int8 network costs on a target does not depend on its scales. A search that asks for the
price of many untrained architectures needs no calibration to learn it, and neither does the
question how small the file of a fixed graph can become.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lilliput.codec.container import encode
from lilliput.data.dataset import Array
from lilliput.encode.integers import (
    Affine,
    from_rows,
    round_rows,
    row_scales,
    to_rows,
    weight_limit,
)
from lilliput.encode.layers import by_weight
from lilliput.encode.placement import Placement, place
from lilliput.encode.prepare import prepare
from lilliput.encode.qdq import Encoding, Integers, write_qdq
from lilliput.errors import Refused
from lilliput.graph import Graph
from lilliput.onnx_io import read_bytes, read_model, write_model

if TYPE_CHECKING:
    import onnx

RANGE = 8.0
"""Any range that is not tiny serves."""


LEAST_BITS = 0.25
"""Of a weight in a packed file: the search for a rate goes on by one bit from one bit at the least
(`FEWEST_BITS` and `FOURFOLD` of `lilliput.encode.economy`)."""


def coarse_int8(source: Path, path: Path) -> Path:
    """Write the int8 form of the float file `source` to `path`; returns `path`.

    Raises:
        Refused: no layer of it would run in int8.
    """
    graph = Graph.of(prepare(read_model(source)).model)
    placement = place(graph)
    weights = {}
    for layer in placement.layers:
        weight = graph.weights(layer.weight)
        rows = to_rows(weight, layer.axis)
        scales = row_scales(rows, weight_limit(7))
        values = from_rows(round_rows(rows, scales, weight_limit(7)), weight.shape, layer.axis)
        weights[layer.weight] = Integers(values, scales, layer.axis)
    write_model(write_qdq(graph, placement, Encoding(_ranges(placement), weights)), path)
    return path


def least_packed_bytes(source: Path) -> int:
    """What the file's int8 form takes at the very least, packed; nothing is calibrated.

    That is the graph, the layers that stay float, and `LEAST_BITS` of each weight that is not
    zero. A file without a layer for int8, or in int8 already, is packed as it is.
    """
    content = bytes(read_bytes(source))
    with suppress(Refused):
        return min(len(content), _least_int8(read_model(source)))
    return min(len(content), len(encode(content)[0]))


def _least_int8(model: onnx.ModelProto) -> int:
    """Raises `Refused` where nothing can be quantized."""
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise Refused("the file is quantized already")
    graph = Graph.of(prepare(model).model)
    placement = place(graph)
    weights: dict[str, Integers] = {}
    biases: dict[str, Array] = {}
    kept = 0
    for name, layers in by_weight(placement.layers).items():
        weight, axis = graph.weights(name), layers[0].axis
        kept += int(np.count_nonzero(weight))
        ones = np.ones(weight.shape[axis], np.float32)
        weights[name] = Integers(np.zeros(weight.shape, np.int8), ones, axis)
        biases |= {layer.node: np.zeros(weight.shape[axis]) for layer in layers}
    written = write_qdq(graph, placement, Encoding(_ranges(placement), weights, biases))
    return len(encode(written.SerializeToString())[0]) + int(kept * LEAST_BITS / 8)


def _ranges(placement: Placement) -> dict[str, Affine]:
    return dict.fromkeys(placement.representatives, Affine.of_range(-RANGE, RANGE))
