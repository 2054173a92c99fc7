"""Which layer suffers: exact identities of the figures, and no figure asked for twice."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.context import SilentProgress
from lilliput.encode.calibration import Calibration
from lilliput.encode.execute import Execution, chain, relative_error
from lilliput.encode.integers import Affine
from lilliput.encode.ladder import Ladder
from lilliput.encode.noise import activation_sqnr_db, decibels, sqnr_db
from lilliput.encode.outcome import State
from lilliput.encode.sensitivity import (
    Mixture,
    layer_sensitivities,
    put_back,
    put_back_counts,
)
from lilliput.encode.study import plain_settings, study_layers
from lilliput.errors import Refused
from lilliput.graph import Graph
from lilliput.runs.cache import cache_for

SETTINGS = replace(plain_settings(saturating=False), ranges="minmax")


@pytest.fixture
def state(residual_net, feeds) -> State:
    return Ladder(SETTINGS, fit=feeds(2), judge=feeds(2, seed=3)).climb(residual_net).state


def test_sqnr_of_weights_is_what_the_formula_gives() -> None:
    # 20 lg(5 / 0.5): the signal is 3² + 4², the noise 0.3² + 0.4²
    exact = np.array([[3.0, 4.0]], np.float32)
    assert sqnr_db(exact, np.array([[2.7, 4.4]], np.float32)) == pytest.approx(20.0, abs=1e-5)
    assert sqnr_db(exact, exact) == math.inf
    assert decibels(0.0, 1.0) == -math.inf


def test_sqnr_of_an_input_is_what_its_levels_leave(builder) -> None:
    b = builder(("n", 2))
    graph = Graph.of(b.model(b.linear("x", "head", (2, 3))))
    batches = [(np.array([[1.0, 2.4]], np.float32),), (np.array([[3.0, 0.0]], np.float32),)]
    found = activation_sqnr_db(graph, {"x": Affine(1.0, 0)}, lambda: iter(batches))
    # of 1, 2.4, 3 and 0 only 2.4 lies beside its level, by 0.4
    assert found == {"x": pytest.approx(10 * math.log10((1 + 5.76 + 9) / 0.16), abs=1e-4)}


def test_the_curve_goes_from_all_in_int8_to_nothing_lost(state: State, feeds) -> None:
    batches = feeds(2, seed=3)
    order = layer_sensitivities(state.graph, state.encoding, batches)
    curve = put_back(state.graph, state.encoding, order, batches)
    whole = relative_error(Execution(state.model()), Execution(state.graph.model()), batches)
    assert [point.count for point in curve] == [0, 1, 2, 3, 4]
    assert (curve[0].path, curve[0].error) == ("", whole)
    assert [point.path for point in curve[1:]] == [layer.path for layer in order]
    assert curve[-1].error == 0.0
    last = put_back(state.graph, state.encoding, order[-1:], batches)
    # The last layer that is in int8 is there alone.
    assert curve[-2].error == order[-1].error == last[0].error


def test_the_worst_comes_first_and_the_metric_is_asked_of_the_same_models(
    state: State, feeds
) -> None:
    seen: list[int] = []

    def drop(model: onnx.ModelProto) -> float:
        seen.append(sum(t.data_type == onnx.TensorProto.INT8 for t in model.graph.initializer))
        return float(len(seen))

    order = layer_sensitivities(state.graph, state.encoding, feeds(1), drop=drop)
    assert [s.error for s in order] == sorted((s.error for s in order), reverse=True)
    assert sorted(s.drop for s in order) == [1.0, 2.0, 3.0, 4.0]
    assert len(set(seen)) == 1  # each model has one layer's integers
    assert {layer.drop for layer in layer_sensitivities(state.graph, state.encoding, feeds(1))} == {
        None
    }


def test_any_mixture_finds_its_numbers_in_the_encoding(state: State, feeds) -> None:
    mixture = Mixture(state.graph, state.encoding)
    nodes = [layer.node for layer in mixture.layers]
    batch = next(feeds(1)())
    for count in range(len(nodes) + 1):
        for int8 in itertools.combinations(nodes, count):
            model = mixture.model(int8)
            integers = {n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
            assert sum(name.endswith("weight_quantized") for name in integers) == count
            assert np.isfinite(next(iter(Execution(model).run(batch).values()))).all()


@given(st.integers(0, 3000))
def test_points_of_the_curve_begin_with_none_and_end_with_all(layers: int) -> None:
    counts = put_back_counts(layers)
    assert (counts[0], counts[-1]) == (0, layers)
    assert counts == sorted(set(counts))
    assert len(counts) <= 20
    assert counts[:4] == list(range(min(layers, 3) + 1))


def test_an_interrupted_study_goes_on_with_the_layers_that_are_left(
    residual_net, feeds, tmp_path: Path
) -> None:
    # users-ask 16: a sensitivity run that was killed continues
    asked: list[bytes] = []

    def drop(model: onnx.ModelProto) -> float:
        asked.append(model.SerializeToString(deterministic=True))
        if len(asked) == stop:
            raise KeyboardInterrupt
        return float(np.frombuffer(asked[-1], np.uint8).mean())

    calibration = Calibration(feeds(2), feeds(2, seed=3), 32)

    def study(root: Path):
        with cache_for("sensitivity", {"file": "a"}, SilentProgress(), root=root) as cache:
            return study_layers(
                residual_net, calibration, SETTINGS, drop=drop, collect=cache.collect
            )

    stop = 3
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "a")
    stop, interrupted = 0, asked[2]
    asked.clear()
    resumed = study(tmp_path / "a")
    assert asked[0] == interrupted
    assert len(asked) == 2 + 5  # of four layers two were there; and all points of the curve
    asked.clear()
    assert study(tmp_path / "b") == resumed
    assert len(asked) == 4 + 5
    asked.clear()
    assert study(tmp_path / "b") == resumed
    assert not asked


def test_a_study_tells_of_every_layer_and_of_those_that_stay_float(builder, feeds) -> None:
    b = builder()
    act = b.node("Relu", [b.conv("x", "stem", (3, 8))], "stem_act")
    up = b.const("up.weight", b.rng.normal(0, 0.3, (8, 4, 2, 2)).astype(np.float32))
    up = b.node("ConvTranspose", [act, up], "up_out", name="/up/ConvTranspose", strides=[2, 2])
    net = b.model(up, 4)
    calibration = Calibration(feeds(2), feeds(2, seed=3), 32)
    study = study_layers(net, calibration, SETTINGS)
    assert [layer.path for layer in study.layers] == ["stem"]
    assert study.layers[0].op == "Conv"
    assert study.layers[0].params == 8 * 3 * 9
    assert 30 < study.layers[0].weight_sqnr_db < 60
    assert 30 < study.layers[0].input_sqnr_db < 60
    assert study.skipped == {"up": "ONNX Runtime has no int8 ConvTranspose"}
    assert study.curve[0].error == study.layers[0].error
    only_up = builder()
    weight = only_up.const("w", np.ones((3, 4, 2, 2), np.float32))
    nothing = only_up.model(only_up.node("ConvTranspose", ["x", weight], "y"), 4)
    with pytest.raises(Refused, match="nothing to quantize: quantized 0 of 1 weighted layers"):
        study_layers(nothing, calibration, SETTINGS)


def test_errors_are_taken_on_all_calibration_batches(state: State, residual_net, feeds) -> None:
    calibration = Calibration(feeds(2), feeds(2, seed=3), 32)
    study = study_layers(residual_net, calibration, SETTINGS)
    both = chain(calibration.fit, calibration.judge)
    expected = relative_error(Execution(state.model()), Execution(state.graph.model()), both)
    assert study.curve[0].error == expected
    assert study.ranges == "per channel, minmax ranges"
