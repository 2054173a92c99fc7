"""Second moments of what a layer sees, float and quantized: all that rounding needs to know.

For a layer y = W x + b whose input has become x̂, the squared error of any other Ŵ and b̂ depends
on the data only through means and covariances of x and x̂, a few hundred numbers square.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lilliput.data.dataset import Array
from lilliput.encode.layers import Layer
from lilliput.graph import Graph, attributes

PATCHES_PER_EXAMPLE = 96
"""Places looked at in each example; with 200 examples some 30 patches per unknown of a row."""


@dataclass
class Moments:
    """Running sums over patches, per group of channels.

    `gram` is Σ w x̂ x̂ᵀ, `cross` is Σ w x x̂ᵀ, both (G, K, K); `mean` and `mean_float` are Σ w x̂
    and Σ w x, both (G, K); `count` is Σ w, (G,). Sums are float64.
    """

    gram: Array
    cross: Array
    mean: Array
    mean_float: Array
    count: Array

    @classmethod
    def zeros(cls, groups: int, width: int) -> Moments:
        square = (groups, width, width)
        flat = (groups, width)
        sums = [np.zeros(shape) for shape in (square, square, flat, flat, (groups,))]
        return cls(*sums)

    def add(self, exact: Array, quantized: Array, weights: Array | None = None) -> None:
        """Count patches: both (G, R, K), row by row the same places; `weights` are (G, R)."""
        if weights is None:
            weights = np.ones(exact.shape[:2], np.float32)
        for group, (x, y, w) in enumerate(zip(exact, quantized, weights, strict=True)):
            weighed = y * w[:, None]
            self.gram[group] += y.T @ weighed
            self.cross[group] += x.T @ weighed
            self.mean[group] += weighed.sum(0, dtype=np.float64)
            self.mean_float[group] += w @ x
            self.count[group] += w.sum(dtype=np.float64)

    @property
    def covariance(self) -> Array:
        """(G, K, K) covariance of x̂ with itself: what is left once the bias is free."""
        return self._centred(self.gram, self.mean)

    @property
    def cross_covariance(self) -> Array:
        """(G, K, K) covariance of x with x̂."""
        return self._centred(self.cross, self.mean_float)

    def _centred(self, squares: Array, left: Array) -> Array:
        count = np.maximum(self.count, 1e-12)[:, None]
        mean, first = self.mean / count, left / count
        return np.asarray(squares / count[..., None] - first[:, :, None] * mean[:, None, :])


def patches(
    graph: Graph, layer: Layer, values: Array, chosen: Array | None = None
) -> tuple[Array, Array]:
    """The patches that the layer multiplies: (G, R, K), and the places they were taken from.

    `values` is the layer's input, (N, C, H, W) or (..., K). `chosen` are places of an earlier
    call (flat output positions, the same for every example); None takes evenly spread ones, at
    most `PATCHES_PER_EXAMPLE` an example. K runs over (height, width, channel).
    """
    if layer.op != "Conv":
        flat = values.reshape(1, -1, values.shape[-1]).astype(np.float32)
        places = np.arange(flat.shape[1]) if chosen is None else chosen
        if chosen is None and len(places) > PATCHES_PER_EXAMPLE * len(values):
            places = _spread(len(places), PATCHES_PER_EXAMPLE * len(values))
        return flat[:, places], places
    windows = conv_windows(graph, layer, values)
    batch, channels, height, width, taps_high, taps_wide = windows.shape
    places = _spread(height * width, PATCHES_PER_EXAMPLE) if chosen is None else chosen
    rows, columns = places // width, places % width
    taken = windows[:, :, rows, columns].astype(np.float32)
    per_group = channels // layer.groups
    shaped = taken.reshape(batch, layer.groups, per_group, len(places), taps_high, taps_wide)
    ordered = shaped.transpose(1, 0, 3, 4, 5, 2)
    width_k = taps_high * taps_wide * per_group
    return np.ascontiguousarray(ordered).reshape(layer.groups, -1, width_k), places


def conv_windows(graph: Graph, layer: Layer, values: Array, fill: float = 0.0) -> Array:
    """A view (N, C, OH, OW, kh, kw) of every window of a two-dimensional convolution."""
    node = graph.named[layer.node]
    high, wide = graph.weights(layer.weight).shape[2:]
    return windows_of(values, (high, wide), attributes(node), fill)


def windows_of(
    values: Array, kernel: tuple[int, int], facts: dict[str, object], fill: float = 0.0
) -> Array:
    """The windows of (N, C, H, W) under a Conv node's attributes; padding holds `fill`."""
    strides = _pair(facts.get("strides", (1, 1)))
    dilations = _pair(facts.get("dilations", (1, 1)))
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    pads = _pads(facts, values.shape[2:], reach, strides)
    if any(pads):
        around = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
        values = np.pad(values, around, constant_values=fill)
    view = sliding_window_view(values, reach, axis=(2, 3))
    thinned: Array = view[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    return thinned


def _pads(
    facts: dict[str, object], size: Iterable[int], reach: tuple[int, ...], strides: tuple[int, int]
) -> tuple[int, ...]:
    """(top, left, bottom, right), also for the automatic kinds."""
    mode = facts.get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        starts, ends = [], []
        for length, r, s in zip(size, reach, strides, strict=True):
            total = max((-(-length // s) - 1) * s + r - length, 0)
            small, large = total // 2, total - total // 2
            starts.append(small if mode == b"SAME_UPPER" else large)
            ends.append(large if mode == b"SAME_UPPER" else small)
        return (*starts, *ends)
    given = facts.get("pads", (0, 0, 0, 0))
    return tuple(int(p) for p in given)  # type: ignore[attr-defined]


def _pair(value: object) -> tuple[int, int]:
    assert isinstance(value, Sequence)
    return int(value[0]), int(value[1])


def _spread(available: int, wanted: int) -> Array:
    """At most `wanted` of `available` places, evenly spread over all, borders included."""
    if available <= wanted:
        return np.arange(available)
    return np.unique(np.round(np.linspace(0, available - 1, wanted)).astype(np.int64))
