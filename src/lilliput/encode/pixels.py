"""Gives a network its pixels back, so that quantizing the input loses nothing.

A picture comes as (pixel * scale - mean) / std with a mean and std per colour; one grid of 256
levels for all colours then misses every pixel value by up to half a level. Undone inside the file
and folded into the first convolution, the grid is that of the pixels themselves. The mean needs a
fourth channel that is 255 inside the picture and 0 in the padding: only there does a padded zero
mean what it did before. The caller feeds the file exactly as before.
"""

from __future__ import annotations

import numpy as np

from lilliput.encode.integers import UNSIGNED_MAX, Affine
from lilliput.graph import Graph, attributes
from lilliput.preprocessing import Preprocessing


def expose_pixels(graph: Graph, preprocessing: Preprocessing | None) -> tuple[Graph, str] | None:
    """The graph with pixels in front of its first convolution, and the pixel tensor's name.

    None where it would not help (one grid fits all colours) or does not apply: several readers of
    the input, a grouped convolution, no declared preprocessing.
    """
    if preprocessing is None or len(graph.inputs) != 1:
        return None
    mean, std = _per_colour(preprocessing)
    if np.ptp(mean) == 0 and np.ptp(std) == 0:
        return None
    readers = graph.readers.get(graph.input_names[0], [])
    conv = readers[0] if len(readers) == 1 else None
    if conv is None or conv.op_type != "Conv" or int(attributes(conv).get("group", 1)) != 1:
        return None
    weight = graph.constants.get(conv.input[1])
    if weight is None or weight.ndim != 4 or weight.shape[1] != len(mean):
        return None
    return _rewritten(graph, conv.name, mean, std, preprocessing.scale)


def pixel_grid() -> Affine:
    """One level a pixel value."""
    return Affine(1.0, 0)


def _per_colour(preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    count = preprocessing.channels
    mean = np.broadcast_to(np.asarray(preprocessing.mean, np.float64), (count,))
    return mean, np.broadcast_to(np.asarray(preprocessing.std, np.float64), (count,))


def _rewritten(
    graph: Graph, conv: str, mean: np.ndarray, std: np.ndarray, scale: float
) -> tuple[Graph, str]:
    import onnx

    changed = graph.copy()
    node = changed.named[conv]
    source = changed.input_names[0]
    weight = changed.weights(node.input[1]).astype(np.float64)
    # x = pixel * scale / std - mean / std, and the last channel is 255 wherever there is a pixel.
    colours = weight * (scale / std)[None, :, None, None]
    inside = -(weight * (mean / std)[None, :, None, None]).sum(1, keepdims=True) / UNSIGNED_MAX
    names = {part: changed.fresh(f"{source}_{part}") for part in ("gain", "shift", "pads", "full")}
    wide = changed.fresh(f"{node.input[1]}_pixels")
    changed.constants[wide] = np.concatenate([colours, inside], axis=1).astype(np.float32)
    changed.constants[names["gain"]] = (std / scale).reshape(1, -1, 1, 1).astype(np.float32)
    changed.constants[names["shift"]] = (mean / scale).reshape(1, -1, 1, 1).astype(np.float32)
    changed.constants[names["pads"]] = np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64)
    changed.constants[names["full"]] = np.array(UNSIGNED_MAX, np.float32)
    scaled, moved = changed.fresh(f"{source}_scaled"), changed.fresh(f"{source}_moved")
    pixels = changed.fresh(f"{source}_pixels")
    steps = (
        ("Mul", [source, names["gain"]], scaled),
        ("Add", [scaled, names["shift"]], moved),
        ("Pad", [moved, names["pads"], names["full"]], pixels),
    )
    for position, (op, inputs, output) in enumerate(steps):
        made = onnx.helper.make_node(op, inputs, [output], name=f"{output}_{op}")
        changed.nodes.insert(position, made)
    node.input[0], node.input[1] = pixels, wide
    changed.prune()
    return changed, pixels
