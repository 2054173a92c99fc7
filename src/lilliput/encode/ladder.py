"""The ladder of post-training quantization: each rung tried in order, logged, kept if it helps.

Min-max per channel, pixel grid, search for ranges, equalization, bias correction, optimized
rounding, and at last float for the worst layers; it stops as soon as the allowed drop is kept.
Where a rate is asked for, steps and integers are then chosen anew for their coded size.
Rungs that choose among a few whole settings are judged on all calibration batches, those that fit
numbers to batches on others that were held out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lilliput.encode.economy import Economy, Fitted, at_rate, cheapest, output_gains, roomiest
from lilliput.encode.equalize import channel_ranges, equalized, scale_float_inputs
from lilliput.encode.execute import Execution, Feeds, chain, head, relative_error
from lilliput.encode.fitting import correct_biases, fit_weights, least_error, nearest_weights
from lilliput.encode.layers import Layer, layers_of, match_layers
from lilliput.encode.outcome import Outcome, Rung, Settings, State
from lilliput.encode.pixels import expose_pixels, pixel_grid
from lilliput.encode.placement import float_fed, place, useful_limits
from lilliput.encode.prepare import prepare
from lilliput.encode.qdq import Encoding
from lilliput.encode.ranges import METHODS, Method, affine_of, observe
from lilliput.encode.sensitivity import layer_sensitivities
from lilliput.errors import LilliputError
from lilliput.graph import Graph

if TYPE_CHECKING:
    import onnx

Drop = Callable[["onnx.ModelProto"], float]
"""How much of the metric a file loses, in its unit; positive is worse."""

Faster = Callable[["onnx.ModelProto", "onnx.ModelProto"], bool]
"""Whether the first file was measured faster than the second, beyond the noise."""

Fits = Callable[["onnx.ModelProto"], bool]
"""Whether a file is small enough, packed if need be."""

EVERY_METHOD: tuple[Method, ...] = METHODS

FEW_CHANNELS = 4
"""A first layer with more input channels than this is like any other."""


WORTH_AN_OPERATOR = 0.9
"""Scales after float operators take time in the file: the error must fall to this share."""


@dataclass
class Ladder:
    """Climbs once. `drop` scores on validation; None judges by the output error alone.

    `fit` and `judge` are disjoint calibration batches. `say` hears each rung as it is done.
    """

    settings: Settings
    fit: Feeds
    judge: Feeds
    drop: Drop | None = None
    max_drop: float | None = None
    faster: Faster | None = None
    fits: Fits | None = None
    say: Callable[[Rung], None] | None = None
    rungs: list[Rung] = field(default_factory=list)
    sensitivity: dict[str, float] = field(default_factory=dict)

    def climb(self, model: onnx.ModelProto) -> Outcome:
        """Quantize a float model.

        Raises:
            Refused: nothing in it can run in int8, or its opset cannot be lifted.
            LilliputError: an exclusion that matches no layer.
        """
        prepared = prepare(model)
        self.graph = Graph.of(prepared.model)
        self.reference = Execution(self.graph.model(), threads=self.settings.threads)
        self.notes = list(prepared.notes)
        self.against = chain(self.fit, self.judge)
        self.best, self.error, self.lost = self._first()
        for rung in self._rest():
            if self._met():
                break
            rung()
        bits = self._economize() if self._too_long() else None
        return Outcome(
            model=self.best.model(),
            state=self.best,
            rungs=tuple(self.rungs),
            notes=tuple(self.notes),
            error=self.error,
            drop=self.lost,
            met=self._met() or self.max_drop is None,
            sensitivity=dict(self.sensitivity),
            bits=bits,
        )

    def _rest(self) -> Iterator[Callable[[], None]]:
        settings = self.settings
        yield self._pixels
        if settings.ranges == "auto":
            yield self._ranges
        if settings.equalize:
            yield self._equalize
            yield self._scales
        if settings.bias_correction:
            yield self._biases
        if settings.rounding != "nearest" and not isinstance(settings.rate, float):
            yield self._rounding
        if self.drop is not None and self.max_drop is not None:
            yield self._floats

    def _met(self) -> bool:
        return self.lost is not None and self.max_drop is not None and self.lost <= self.max_drop

    def _too_long(self) -> bool:
        """Whether weights are to be chosen for their coded size."""
        if self.settings.rate == "size":
            return self.fits is not None and not self.fits(self.best.model())
        return self.settings.rate is not None

    # The rungs ---------------------------------------------------------------------------

    def _first(self) -> tuple[State, float, float | None]:
        begun = time.perf_counter()
        excluded = match_layers(layers_of(self.graph), self.settings.exclude)
        floats = dict.fromkeys(sorted(excluded), "excluded")
        method: Method = "minmax" if self.settings.ranges == "auto" else self.settings.ranges
        state = self._plain(self.graph, floats, method)
        state = self._entry(self._depthwise(state, method), method)
        error = self._measure(state)
        lost = None if self.drop is None else self.drop(state.model())
        self._log(f"per channel, {method} ranges", error, lost, begun, kept=True)
        return state, error, lost

    def _pixels(self) -> None:
        begun = time.perf_counter()
        found = expose_pixels(self.best.graph, self.settings.preprocessing)
        if found is None or not set(self.best.graph.input_names) & set(self.best.placement.tensors):
            return
        graph, pixels = found
        method: Method = "minmax" if self.settings.ranges == "auto" else self.settings.ranges
        floats = _floats_of(self.best)
        self._offer("pixel grid", self._plain(graph, floats, method, pixels), begun)

    def _ranges(self) -> None:
        begun = time.perf_counter()
        states = {m: _ranged(self.best, m) for m in EVERY_METHOD}
        errors = {m: self._measure(s) for m, s in states.items()}
        method = min(EVERY_METHOD, key=lambda m: errors[m])
        note = ", ".join(f"{m} {100 * errors[m]:.2f} %" for m in EVERY_METHOD)
        self._offer(f"ranges by {method}", states[method], begun, errors[method], note)

    def _equalize(self) -> None:
        begun = time.perf_counter()
        tensors = [t for t in self.best.placement.representatives if t != self.best.pixels]
        graph = equalized(self.best.graph, tensors, self.fit, threads=self.settings.threads)
        method = self._method()
        state = self._plain(graph, _floats_of(self.best), method, self.best.pixels)
        self._offer("cross-layer equalization", state, begun)

    def _scales(self) -> None:
        """Where float operators feed int8 layers, nothing can be moved back through them."""
        begun = time.perf_counter()
        best = self.best
        fed = [x for x in float_fed(best.graph, best.placement) if x.input != best.pixels]
        if not fed:
            return
        tensors = dict.fromkeys(layer.input for layer in fed)
        ranges = channel_ranges(best.graph, tensors, self.fit, threads=self.settings.threads)
        graph = scale_float_inputs(best.graph, fed, ranges)
        state = self._plain(graph, _floats_of(best), self._method(), best.pixels)
        self._offer("channel scales after float operators", state, begun, below=WORTH_AN_OPERATOR)

    def _hold_out(self) -> None:
        """From here on only batches count to which nothing is fitted."""
        if self.against is not self.judge:
            self.against = self.judge
            self.error = self._measure(self.best)

    def _biases(self) -> None:
        begun = time.perf_counter()
        self._hold_out()
        best = self.best
        encoding = correct_biases(
            best.graph, best.placement, best.encoding, self.fit, threads=self.settings.threads
        )
        self._offer("bias correction", replace(best, encoding=encoding), begun)

    def _rounding(self) -> None:
        begun = time.perf_counter()
        self._hold_out()
        best = self.best
        encoding = fit_weights(
            best.graph,
            best.placement,
            best.encoding,
            least_error(self.settings.grid),
            self.fit,
            threads=self.settings.threads,
        )
        self._offer("optimized rounding", replace(best, encoding=encoding), begun)

    def _floats(self) -> None:
        """Put layers back into float, the most sensitive first, until the drop is kept."""
        begun = time.perf_counter()
        few = head(self.judge, self.settings.sensitivity_batches)
        order = layer_sensitivities(
            self.best.graph, self.best.encoding, few, threads=self.settings.threads
        )
        self.sensitivity = {layer.path: layer.error for layer in order}
        floats = _floats_of(self.best)
        paths: list[str] = []
        for worst in order[: len(self.best.placement.layers) - 1]:
            floats[worst.node] = "float fall-back: the most sensitive"
            paths.append(worst.path)
            state = self._replaced(self.best, floats)
            error, lost = self._measure(state), self._lose(state)
            kept = lost is not None and self.lost is not None and lost < self.lost
            if kept:
                self.best, self.error, self.lost = state, error, lost
            name = f"{len(paths)} layers in float" if len(paths) > 1 else "1 layer in float"
            self._log(name, error, lost, begun, kept=kept, note=worst.path)
            if self._met():
                return

    def _economize(self) -> float | None:
        """Steps and integers that pack small; the bits a weight they take, None if none fits."""
        self._hold_out()
        best, threads = self.best, self.settings.threads
        few = head(self.fit, self.settings.sensitivity_batches)
        gains = output_gains(best.graph, best.placement.layers, few, threads=threads)
        economy = Economy(best, self.settings.grid, self.fit, gains, threads)
        begun, bits = time.perf_counter(), None
        for found, better in self._fits(economy):
            error = self._measure(found.state)
            if better:
                self.best, self.error, self.lost = found.state, error, found.drop
                bits = found.bits
            self._log(f"{found.bits:.2f} bits a weight", error, found.drop, begun, kept=better)
            begun = time.perf_counter()
        if self.lost is None:
            self.lost = self._lose(self.best)
        return bits

    def _fits(self, economy: Economy) -> Iterator[tuple[Fitted, bool]]:
        """Models and whether each is the best so far."""
        if isinstance(self.settings.rate, float):
            return at_rate(economy, self.settings.rate)
        if self.settings.rate == "size" and self.fits is not None:
            return roomiest(economy, self.fits)
        if self.drop is None or self.max_drop is None:
            raise LilliputError(
                "`rate: auto` takes bits away until the allowed drop is reached, and none is set",
                hint="give `max_drop`, or a rate in bits a weight, as `rate: 4`",
            )
        return cheapest(economy, self.drop, self.max_drop)

    # What they are made of ------------------------------------------------------------------

    def _plain(
        self, graph: Graph, floats: Mapping[str, str], method: Method, pixels: str = ""
    ) -> State:
        """Ranges by `method`, weights to nearest."""
        placement = place(graph, floats)
        histograms = observe(
            graph, placement.representatives, self.fit, threads=self.settings.threads
        )
        weights = nearest_weights(graph, placement, self.settings.grid)
        state = State(graph, placement, Encoding({}, weights), histograms, pixels)
        return _ranged(state, method)

    def _method(self) -> Method:
        """The ranges that the best state so far was made with."""
        for rung in reversed(self.rungs):
            if rung.kept and rung.name.startswith("ranges by "):
                return next(m for m in EVERY_METHOD if rung.name.endswith(m))
        return "minmax" if self.settings.ranges == "auto" else self.settings.ranges

    def _depthwise(self, state: State, method: Method) -> State:
        """Depthwise layers in float if told so, or if that was measured faster."""
        depthwise = [layer for layer in state.placement.layers if layer.depthwise]
        if self.settings.depthwise == "auto":
            return self._if_faster(state, depthwise, "depthwise", method)
        if self.settings.depthwise == "float" and depthwise:
            return self._lifted(state, depthwise, "depthwise in float", method) or state
        return state

    def _entry(self, state: State, method: Method) -> State:
        """Layers that read the picture itself in float, if that was measured faster.

        Three input channels fill no vector, and a float result needs no quantizing beforehand.
        """
        first = [
            layer
            for layer in state.placement.layers
            if layer.op == "Conv"
            and layer.input in state.graph.input_names
            and state.graph.weights(layer.weight).shape[1] <= FEW_CHANNELS
        ]
        return self._if_faster(state, first, "first layer", method)

    def _if_faster(self, state: State, layers: Sequence[Layer], what: str, method: Method) -> State:
        """The state with these layers in float, if the stopwatch says so."""
        if not layers or self.faster is None:
            return state
        without = self._lifted(state, layers, f"{what}, measured faster in float", method)
        if without is None:
            return state
        wins = self.faster(without.model(), state.model())
        verdict = "float: measured faster so" if wins else "int8: float was not measured faster"
        self.notes.append(f"{what} ({len(layers)}) in {verdict}")
        return without if wins else state

    def _lifted(
        self, state: State, layers: Sequence[Layer], reason: str, method: Method
    ) -> State | None:
        """The state with these layers in float; None where nothing would be left in int8."""
        floats = {**_floats_of(state), **{layer.node: reason for layer in layers}}
        if not place(state.graph, floats).layers:
            return None
        return self._plain(state.graph, floats, method, state.pixels)

    def _replaced(self, state: State, floats: Mapping[str, str]) -> State:
        """The state with other layers in float; new tensors get ranges, old numbers stay."""
        placement = place(state.graph, floats)
        missing = [t for t in placement.representatives if t not in state.histograms]
        more = observe(state.graph, missing, self.fit, threads=self.settings.threads)
        moved = replace(state, placement=placement, histograms={**state.histograms, **more})
        fresh = _ranged(moved, self._method()).encoding.activations
        activations = {**fresh, **state.encoding.activations}
        return replace(moved, encoding=replace(state.encoding, activations=activations))

    # Judging -------------------------------------------------------------------------------------

    def _measure(self, state: State) -> float:
        ours = Execution(state.model(), threads=self.settings.threads)
        return relative_error(ours, self.reference, self.against)

    def _lose(self, state: State) -> float | None:
        return None if self.drop is None else self.drop(state.model())

    def _offer(
        self,
        name: str,
        state: State,
        begun: float,
        error: float | None = None,
        note: str = "",
        below: float = 1.0,
    ) -> None:
        """Keep the state if its output error is below this share of the best so far."""
        error = self._measure(state) if error is None else error
        kept = error < below * self.error
        lost = self._lose(state) if kept else None
        if kept:
            self.best, self.error, self.lost = state, error, lost
        self._log(name, error, lost, begun, kept=kept, note=note)

    def _log(
        self,
        name: str,
        error: float,
        lost: float | None,
        begun: float,
        *,
        kept: bool,
        note: str = "",
    ) -> None:
        seconds = round(time.perf_counter() - begun, 3)
        rung = Rung(name, error, kept, seconds, lost, note)
        self.rungs.append(rung)
        if self.say is not None:
            self.say(rung)


def _ranged(state: State, method: Method) -> State:
    """The state with the ranges of `method`; the pixel tensor keeps its own grid."""
    limits = useful_limits(state.graph, state.placement)
    activations = {
        name: affine_of(state.histograms[name], method, limits[name])
        for name in state.placement.representatives
    }
    if state.pixels in activations:
        activations[state.pixels] = pixel_grid()
    return replace(state, encoding=replace(state.encoding, activations=activations))


def _floats_of(state: State) -> dict[str, str]:
    """{node: reason} of the layers that the state leaves in float by choice."""
    return {layer.node: why for layer, why in state.placement.floats.items()}
