"""What each layer of a float file has to do with what int8 costs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lilliput.encode.calibration import Calibration
from lilliput.encode.execute import Feeds, chain
from lilliput.encode.ladder import Ladder
from lilliput.encode.noise import activation_sqnr_db, sqnr_db
from lilliput.encode.outcome import Settings, State
from lilliput.encode.sensitivity import Mixture, layer_sensitivities, put_back
from lilliput.meter.sensitivities import LayerSensitivity, PutBackPoint
from lilliput.preprocessing import Preprocessing
from lilliput.runs.cache import Collect, collected

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    Drop = Callable[[onnx.ModelProto], float]


@dataclass(frozen=True)
class Study:
    """The figures of all layers, the curve, how ranges were chosen, and what stays float."""

    layers: tuple[LayerSensitivity, ...]
    curve: tuple[PutBackPoint, ...]
    ranges: str
    skipped: dict[str, str]


def plain_settings(
    *, saturating: bool, preprocessing: Preprocessing | None = None, threads: int = 1
) -> Settings:
    """Int8 without repairs: what a layer does by itself, not what is left after mending it."""
    return Settings(
        saturating=saturating,
        equalize=False,
        bias_correction=False,
        rounding="nearest",
        depthwise="int8",
        preprocessing=preprocessing,
        threads=threads,
    )


def study_layers(
    model: onnx.ModelProto,
    calibration: Calibration,
    settings: Settings,
    *,
    drop: Drop | None = None,
    collect: Collect = collected,
) -> Study:
    """Each layer alone in int8, and the curve of putting the worst back into float.

    Args:
        model: A float model.
        calibration: Batches; ranges are taken from some of them, errors from all.
        settings: Of the int8 engine, see `plain_settings`.
        drop: What a model loses of the metric.
        collect: Does the work piece by piece (a progress bar, a cache).

    Raises:
        Refused: Nothing in it can run in int8.
    """
    outcome = Ladder(settings, fit=calibration.fit, judge=calibration.judge).climb(model)
    state, feeds = outcome.state, chain(calibration.fit, calibration.judge)
    shared: dict[str, Any] = {"drop": drop, "threads": settings.threads, "collect": collect}
    order = layer_sensitivities(state.graph, state.encoding, feeds, **shared)
    curve = put_back(state.graph, state.encoding, order, feeds, **shared)
    noise = _noise(state, feeds, settings.threads)
    return Study(
        layers=tuple(
            LayerSensitivity(path=s.path, error=s.error, drop=s.drop, **noise[s.node])
            for s in order
        ),
        curve=tuple(
            PutBackPoint(count=p.count, path=p.path, error=p.error, drop=p.drop) for p in curve
        ),
        ranges=next(rung.name for rung in reversed(outcome.rungs) if rung.kept),
        skipped=dict(state.placement.skipped),
    )


def _noise(state: State, feeds: Feeds, threads: int) -> dict[str, dict[str, Any]]:
    """{node: kind, weights and both ratios of signal to noise}."""
    graph, mixture = state.graph, Mixture(state.graph, state.encoding)
    affines = {layer.input: mixture.affine(layer) for layer in mixture.layers}
    inputs = activation_sqnr_db(graph, affines, feeds, threads=threads)
    return {
        layer.node: {
            "op": layer.op,
            "params": graph.weights(layer.weight).size,
            "weight_sqnr_db": sqnr_db(
                graph.weights(layer.weight), state.encoding.weights[layer.weight].real
            ),
            "input_sqnr_db": inputs[layer.input],
        }
        for layer in mixture.layers
    }
