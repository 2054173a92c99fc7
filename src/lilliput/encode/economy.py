"""Int8 weights that pack small: one price of a bit for the whole network, and how it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.execute import Execution, Feeds
from lilliput.encode.fitting import Grids, fit_weights
from lilliput.encode.layers import Layer, by_weight
from lilliput.encode.outcome import State
from lilliput.encode.rate import code_length, economize
from lilliput.graph import Graph

if TYPE_CHECKING:
    import onnx

PROBE = 0.05
"""Size of the noise whose effect on the output is measured, as a share of the weights' own."""

FIRST_ERROR = 1e-3
"""Squared relative output error for one bit of every weight: where the search begins."""

NEAR = 0.1
"""A rate that is met within so many bits a weight is met."""
MOST_FITS = 7

FOURFOLD = 4.0
"""About one bit a weight, where steps are fine."""
FINEST = 0.3
"""A search for the last allowed rate stops when it knows it this exactly, in bits a weight that is
not zero to begin with."""
FEWEST_BITS, MOST_BITS = 1.0, 7.0

TINY = 1e-30


@dataclass(frozen=True)
class Fitted:
    """An int8 model at a price, and the bits a weight that its integers take.

    `drop` is what it loses of the metric, where that was asked.
    """

    state: State
    price: float
    bits: float
    drop: float | None = None


@dataclass(frozen=True)
class Economy:
    """Fits a network's int8 weights at a price, layer by layer.

    `gains` is {weight: squared relative error of the network's output per squared error of an
    output channel, summed over channels, mean over places and examples}.
    """

    state: State
    grids: Grids
    feeds: Feeds
    gains: dict[str, float]
    threads: int = 1

    @property
    def first_price(self) -> float:
        """Some 4 bits a weight, whatever the size of the network."""
        return FIRST_ERROR / sum(weight.size for weight in self._weights())

    @property
    def density(self) -> float:
        """The share of the weights that are not zero: what was pruned takes hardly a bit."""
        counts = [(np.count_nonzero(weight), weight.size) for weight in self._weights()]
        kept, size = (sum(column) for column in zip(*counts, strict=True))
        return float(kept / size)

    def _weights(self) -> list[Array]:
        names = by_weight(self.state.placement.layers)
        return [self.state.graph.weights(name) for name in names]

    def at(self, price: float) -> Fitted:
        """The model whose every bit saves at least `price` of squared relative output error."""
        sizes: dict[str, tuple[float, int]] = {}

        def choose(layer: Layer, rows: Array, covariance: Array) -> tuple[Array, Array]:
            own = price / max(self.gains[layer.weight], TINY)
            steps, scales = economize(rows, covariance, self.grids(layer), own)
            sizes[layer.weight] = code_length(steps), steps.size
            return steps, scales

        state = self.state
        encoding = fit_weights(
            state.graph,
            state.placement,
            state.encoding,
            choose,
            self.feeds,
            threads=self.threads,
        )
        bits, weights = (sum(column) for column in zip(*sizes.values(), strict=True))
        return Fitted(replace(state, encoding=encoding), price, bits / weights)


def at_rate(economy: Economy, bits: float) -> Iterator[tuple[Fitted, bool]]:
    """Models, and whether each comes nearer to `bits` a weight than those before it.

    A bit less lets the error grow fourfold where steps are fine, more where they are coarse: the
    price is moved along the line through the last two models.
    """
    price, slope = economy.first_price, -0.5
    before: Fitted | None = None
    nearest = np.inf
    for _ in range(MOST_FITS):
        found = economy.at(price)
        gap = abs(found.bits - bits)
        yield found, gap < nearest
        nearest = min(gap, nearest)
        if gap <= NEAR:
            return
        if before is not None and found.bits != before.bits:
            run = np.log2(found.price / before.price)
            slope = float(np.clip((found.bits - before.bits) / run, -1.0, -0.1))
        before = found
        price = found.price * 2.0 ** ((bits - found.bits) / slope)


def cheapest(
    economy: Economy, drop: Callable[[onnx.ModelProto], float], limit: float
) -> Iterator[tuple[Fitted, bool]]:
    """Models that lose more and more, and whether each stays within `limit`.

    The allowed model that comes last takes the fewest bits.
    """

    def judged(plain: Fitted) -> tuple[Fitted, bool]:
        lost = drop(plain.state.model())
        return replace(plain, drop=lost), lost <= limit

    return _furthest(economy, judged, FOURFOLD)


def roomiest(
    economy: Economy, fits: Callable[[onnx.ModelProto], bool]
) -> Iterator[tuple[Fitted, bool]]:
    """Models of more and more bits, and whether the packed file of each is small enough.

    The one that fits and comes last takes the most bits.
    """

    def judged(plain: Fitted) -> tuple[Fitted, bool]:
        return plain, fits(plain.state.model())

    return _furthest(economy, judged, 1 / FOURFOLD)


def _furthest(
    economy: Economy, judged: Callable[[Fitted], tuple[Fitted, bool]], factor: float
) -> Iterator[tuple[Fitted, bool]]:
    """Prices change by `factor` while models are allowed, and back where the first is not; then
    the interval is halved.
    """
    good: Fitted | None = None
    bad: Fitted | None = None
    price, density = economy.first_price, economy.density
    for _ in range(MOST_FITS):
        found, fine = judged(economy.at(price))
        yield found, fine
        good, bad = (found, bad) if fine else (good, found)
        if (good is None or bad is None) and not FEWEST_BITS * density < found.bits < MOST_BITS:
            return
        if good is None:
            price /= factor
        elif bad is None:
            price *= factor
        elif abs(good.bits - bad.bits) <= FINEST * density:
            return
        else:
            price = float(np.sqrt(good.price * bad.price))


def output_gains(
    graph: Graph, layers: Sequence[Layer], feeds: Feeds, *, seed: int = 0, threads: int = 1
) -> dict[str, float]:
    """What an error of a layer's output does to the network's, measured: see `Economy.gains`.

    Each weight in turn gets a little white noise, in the float network.
    """
    rng = np.random.default_rng(seed)
    gains = {}
    for weight, sharing in by_weight(layers).items():
        values = graph.weights(weight)
        noise = rng.standard_normal(values.shape) * PROBE * float(np.std(values))
        noisy = graph.copy()
        noisy.constants[weight] = (values + noise).astype(np.float32)
        gains[weight] = _gain(graph, noisy, sharing, feeds, threads)
    return gains


def _gain(graph: Graph, noisy: Graph, layers: Sequence[Layer], feeds: Feeds, threads: int) -> float:
    shown = [*(layer.output for layer in layers), *graph.output_names]
    plain, other = (Execution(g.model(), shown, threads=threads) for g in (graph, noisy))
    inner = outer = size = examples = 0.0
    for batch in feeds():
        before, after = plain.run(batch), other.run(batch)
        examples += len(batch[0])
        for layer in layers:
            gap = after[layer.output] - before[layer.output]
            inner += _square(gap) / _places(layer, gap)
        outer += sum(_square(after[n] - before[n]) for n in graph.output_names)
        size += sum(_square(before[n]) for n in graph.output_names)
    return (outer / max(size, TINY)) / max(inner / examples, TINY)


def _square(values: Array) -> float:
    flat = values.astype(np.float64).ravel()
    return float(flat @ flat)


def _places(layer: Layer, values: Array) -> float:
    """Numbers of one channel of one example."""
    around = values.shape[2:] if layer.op == "Conv" else values.shape[1:-1]
    return float(np.prod(around))
