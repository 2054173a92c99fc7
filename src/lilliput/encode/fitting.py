"""Fits weights and biases layer by layer, each on the inputs that the int8 layers before it make.

`correct_biases` is empirical bias correction: Nagel et al., "Data-Free Quantization", ICCV 2019,
arXiv 1906.04721, section 4.2 and appendix D. `fit_weights` also has the integers
chosen, for targets that make up for the error of the inputs: by `lilliput.encode.rounding` or
`lilliput.encode.rate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.execute import Feeds
from lilliput.encode.frontier import Frontier
from lilliput.encode.integers import from_rows, to_rows
from lilliput.encode.layers import Layer, by_weight
from lilliput.encode.moments import Moments, patches
from lilliput.encode.placement import FLAT_BELOW, Placement
from lilliput.encode.qdq import Encoding, Integers, bias_of, write_qdq
from lilliput.encode.rounding import Grid, best_target, optimize
from lilliput.graph import Graph

LEAST_WEIGHT = 0.1
"""What a place counts for in fitting at which every channel's activation is flat."""

Grids = Callable[[Layer], Grid]
Choose = Callable[[Layer, Array, Array], tuple[Array, Array]]
"""Integers (G, O, K) and scales (G, O) of a layer, from (G, O, K) target and (G, K, K) covariance
of its inputs."""


def nearest_weights(graph: Graph, placement: Placement, grids: Grids) -> dict[str, Integers]:
    """Every int8 layer's weight rounded to nearest at the largest safe integers."""
    return {
        layer.weight: _integers(graph, layer, *_nearest(graph, layer, grids(layer)))
        for layer in placement.layers
    }


def correct_biases(
    graph: Graph, placement: Placement, encoding: Encoding, feeds: Feeds, *, threads: int = 1
) -> Encoding:
    """The encoding with biases that take away each channel's mean error.

    Differs: where an activation is flat the error does not matter and is left out of the mean.
    """
    with _Pair(graph, placement, feeds, threads) as pair:
        for index, layer in enumerate(placement.layers):
            if layer.op != "MatMul":
                encoding = pair.with_bias(encoding, layer)
            pair.passed(index)
    return encoding


def least_error(grids: Grids) -> Choose:
    """The integers whose output error is least (`rounding.optimize`)."""
    return lambda layer, rows, covariance: optimize(rows, covariance, grids(layer))


def fit_weights(
    graph: Graph,
    placement: Placement,
    encoding: Encoding,
    choose: Choose,
    feeds: Feeds,
    *,
    threads: int = 1,
) -> Encoding:
    """The encoding with integers, scales and biases fitted to the calibration batches.

    A weight that several layers share is fitted once, to all of them.
    """
    users = by_weight(placement.layers)
    fitted: set[str] = set()
    with _Pair(graph, placement, feeds, threads) as pair:
        for index, layer in enumerate(placement.layers):
            sharing = users[layer.weight]
            if layer.weight not in fitted:
                fitted.add(layer.weight)
                moments = pair.moments(encoding, sharing)
                encoding = _with_weights(graph, encoding, layer, moments, choose)
                pair.forget_after(layer, sharing)
            if layer.op != "MatMul":
                encoding = pair.with_bias(encoding, layer)
            pair.passed(index)
    return encoding


class _Pair:
    """The float graph and the int8 graph side by side, as far as the fitting has come."""

    def __init__(self, graph: Graph, placement: Placement, feeds: Feeds, threads: int) -> None:
        self.graph, self.placement = graph, placement
        layers = placement.layers
        self.exact = Frontier(graph, layers, feeds, threads=threads)
        self.ours = Frontier(graph, layers, feeds, threads=threads)

    def __enter__(self) -> _Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.exact.close()
        self.ours.close()

    def patches(self, encoding: Encoding, layer: Layer) -> Iterator[tuple[Array, Array]]:
        """Patches of the layer's input, float and int8, batch by batch, of the same places."""
        self.exact.advance(self.graph.model(), layer.input)
        self.ours.advance(write_qdq(self.graph, self.placement, encoding), layer.input)
        affine = encoding.activations[self.placement.tensors[layer.input]]
        both = zip(self.exact.values(layer.input), self.ours.values(layer.input), strict=True)
        for theirs, made in both:
            quantized = affine.dequantize(affine.quantize(made))
            kept, places = patches(self.graph, layer, theirs)
            yield kept, patches(self.graph, layer, quantized, places)[0]

    def moments(self, encoding: Encoding, layers: Sequence[Layer]) -> Moments:
        """Moments of the layers' inputs, summed over the layers.

        A place counts by the share of the output channels at which it matters.
        """
        rows = grouped_rows(self.graph, layers[0])
        moments = Moments.zeros(len(rows), rows.shape[-1])
        for layer in layers:
            flat, bias = flat_below(self.graph, layer), bias_of(self.graph, layer)
            for exact, quantized in self.patches(encoding, layer):
                weights = None
                if np.isfinite(flat):
                    made = _products(exact, rows, bias)
                    weights = LEAST_WEIGHT + (made > flat).mean(-1, dtype=np.float32)
                moments.add(exact, quantized, weights)
        return moments

    def with_bias(self, encoding: Encoding, layer: Layer) -> Encoding:
        """The encoding whose layer has the float layer's mean output, where that matters."""
        rows = grouped_rows(self.graph, layer)
        integers = encoding.weights[layer.weight]
        ours = to_rows(integers.real, layer.axis).reshape(rows.shape)
        bias, flat = bias_of(self.graph, layer), flat_below(self.graph, layer)
        gaps = np.zeros(rows.shape[:2])
        counts = np.zeros(rows.shape[:2])
        for exact, quantized in self.patches(encoding, layer):
            theirs, made = _products(exact, rows, bias), _products(quantized, ours, bias)
            matters = np.maximum(theirs, made) > flat
            gaps += ((theirs - made) * matters).sum(1, dtype=np.float64)
            counts += matters.sum(1)
        moved = bias + (gaps / np.maximum(counts, 1)).reshape(-1)
        return replace(encoding, biases={**encoding.biases, layer.node: moved})

    def forget_after(self, layer: Layer, sharing: Sequence[Layer]) -> None:
        """Drop int8 tensors that were computed ahead, with a shared weight not yet fitted."""
        for other in sharing:
            if other.input != layer.input:
                self.ours.forget(other.input)

    def passed(self, index: int) -> None:
        self.exact.passed(index)
        self.ours.passed(index)


def flat_below(graph: Graph, layer: Layer) -> float:
    """The output below which the activation after the layer hides any error; -inf if none does."""
    reader = graph.sole_reader(layer.output)
    if reader is None:
        return -np.inf
    return {"Relu": 0.0, **FLAT_BELOW}.get(reader.op_type, -np.inf)


def _products(seen: Array, rows: Array, bias: Array) -> Array:
    """(G, R, K) patches times (G, O, K) rows, plus bias → (G, R, O) float32."""
    made = np.matmul(seen, rows.astype(np.float32).transpose(0, 2, 1))
    return np.asarray(made + bias.reshape(len(rows), 1, -1).astype(np.float32))


def grouped_rows(graph: Graph, layer: Layer) -> Array:
    """The float weight as (G, O / G, K), float64."""
    rows = to_rows(graph.weights(layer.weight), layer.axis).astype(np.float64)
    return rows.reshape(layer.groups, -1, rows.shape[1])


def _nearest(graph: Graph, layer: Layer, grid: Grid) -> tuple[Array, Array]:
    rows = grouped_rows(graph, layer)
    scales = grid.scales(rows)
    return grid.nearest(rows, scales), scales


def _integers(graph: Graph, layer: Layer, steps: Array, scales: Array) -> Integers:
    shape = graph.weights(layer.weight).shape
    rows = steps.reshape(shape[layer.axis], -1).astype(np.int8)
    values = from_rows(rows, shape, layer.axis)
    return Integers(values, scales.reshape(-1).astype(np.float32), layer.axis)


def _with_weights(
    graph: Graph, encoding: Encoding, layer: Layer, moments: Moments, choose: Choose
) -> Encoding:
    rows = best_target(grouped_rows(graph, layer), moments)
    steps, scales = choose(layer, rows, moments.covariance)
    integers = _integers(graph, layer, steps, scales)
    return replace(encoding, weights={**encoding.weights, layer.weight: integers})
