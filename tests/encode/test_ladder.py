"""The ladder: tried in order, kept if it helps, stopped at the allowed drop."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from lilliput.encode.execute import Execution, relative_error
from lilliput.encode.ladder import Ladder
from lilliput.encode.outcome import Outcome, Settings
from lilliput.encode.saturation import OldCpu, can_saturate
from lilliput.errors import LilliputError, Refused
from lilliput.meter.coverage import coverage
from lilliput.onnx_io import write_model
from lilliput.preprocessing import Preprocessing
from lilliput.target import Target


@pytest.fixture
def spread_feeds(feeds):
    return feeds(count=6, size=16, shape=(8, 8, 8)), feeds(count=2, shape=(8, 8, 8), seed=3)


def error(model: onnx.ModelProto, reference: onnx.ModelProto, batches) -> float:
    return relative_error(Execution(model), Execution(reference), batches)


def names(outcome: Outcome) -> list[str]:
    return [rung.name.split(",")[0] for rung in outcome.rungs]


def test_rungs_come_in_order_and_the_error_never_rises(residual_net, feeds) -> None:
    said: list[str] = []
    ladder = Ladder(
        Settings(),
        fit=feeds(count=6),
        judge=feeds(count=2, seed=3),
        say=lambda rung: said.append(str(rung)),
    )
    outcome = ladder.climb(residual_net)
    kinds = ["per channel", "ranges by", "cross-layer", "bias corr", "optimized"]
    assert len(outcome.rungs) == len(kinds)
    for rung, kind in zip(outcome.rungs, kinds, strict=True):
        assert rung.name.startswith(kind)
        assert rung.seconds >= 0
    for part in (outcome.rungs[:3], outcome.rungs[3:]):
        kept = [rung.error for rung in part if rung.kept]
        assert kept == sorted(kept, reverse=True)
    assert outcome.error == kept[-1]
    assert outcome.error == pytest.approx(
        error(outcome.model, residual_net, feeds(count=2, seed=3)), rel=1e-3
    )
    assert outcome.met
    assert said[0].startswith("per channel, minmax ranges: output error")
    assert any("(not kept)" in text for text in said) == any(
        not rung.kept for rung in outcome.rungs
    )


def test_spread_channel_ranges_recover_without_user_action(depthwise_net, spread_feeds) -> None:
    # users-ask 13
    fit, judge = spread_feeds

    def drop(model: onnx.ModelProto) -> float:
        return 100 * error(model, depthwise_net, judge)

    ladder = Ladder(Settings(), fit=fit, judge=judge, drop=drop, max_drop=2.0)
    outcome = ladder.climb(depthwise_net)
    assert outcome.rungs[0].drop > 8.0
    assert outcome.drop <= 2.0
    assert outcome.met
    assert drop(outcome.model) == pytest.approx(outcome.drop, rel=1e-3)


def test_it_stops_as_soon_as_the_drop_is_kept(residual_net, feeds) -> None:
    ladder = Ladder(Settings(), fit=feeds(), judge=feeds(seed=3), drop=lambda _: 0.4, max_drop=0.5)
    assert names(ladder.climb(residual_net)) == ["per channel"]


def test_without_data_to_score_every_rung_is_tried(residual_net, feeds) -> None:
    ladder = Ladder(Settings(), fit=feeds(), judge=feeds(seed=3), max_drop=0.5)
    outcome = ladder.climb(residual_net)
    assert len(outcome.rungs) == 5
    assert outcome.drop is None
    assert not outcome.met


def test_the_worst_layers_return_to_float_until_the_drop_is_kept(residual_net, feeds) -> None:
    judge = feeds(seed=3)

    def drop(model: onnx.ModelProto) -> float:
        floats = sum(
            1
            for t in model.graph.initializer
            if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1
        )
        return 3.0 - floats

    ladder = Ladder(Settings(), fit=feeds(), judge=judge, drop=drop, max_drop=1.0)
    outcome = ladder.climb(residual_net)
    assert outcome.met
    assert outcome.coverage.startswith("quantized 2 of 4 weighted layers, skipped:")
    assert outcome.coverage.count("float fall-back: the most sensitive") == 2
    assert len(outcome.sensitivity) >= 2
    assert list(outcome.sensitivity.values()) == sorted(outcome.sensitivity.values(), reverse=True)
    assert [r.name for r in outcome.rungs[-2:]] == ["1 layer in float", "2 layers in float"]


def test_an_impossible_budget_still_gives_a_file(residual_net, feeds) -> None:
    # users-ask 14
    ladder = Ladder(Settings(), fit=feeds(), judge=feeds(seed=3), drop=lambda _: 9.0, max_drop=0.5)
    outcome = ladder.climb(residual_net)
    assert not outcome.met
    assert outcome.drop == 9.0
    assert outcome.coverage == "quantized 4 of 4 weighted layers"


@pytest.mark.parametrize("wins", [True, False])
def test_depthwise_layers_run_where_they_were_measured_faster(
    depthwise_net, spread_feeds, wins: bool
) -> None:
    # users-ask 3
    fit, judge = spread_feeds
    asked: list[int] = []

    def faster(first: onnx.ModelProto, second: onnx.ModelProto) -> bool:
        asked.append(len(first.graph.initializer) - len(second.graph.initializer))
        return wins

    outcome = Ladder(Settings(rounding="nearest"), fit=fit, judge=judge, faster=faster).climb(
        depthwise_net
    )
    assert len(asked) == 1
    assert ("depthwise, measured faster in float" in outcome.coverage) is wins
    assert any("measured faster" in note for note in outcome.notes)


@pytest.mark.parametrize("wins", [True, False])
def test_the_first_layer_runs_where_it_was_measured_faster(residual_net, feeds, wins) -> None:
    ladder = Ladder(Settings(rounding="nearest"), feeds(), feeds(seed=3), faster=lambda *_: wins)
    outcome = ladder.climb(residual_net)
    skipped = "quantized 3 of 4 weighted layers, skipped: stem (first layer, measured faster in"
    assert outcome.coverage.startswith(skipped) is wins
    assert outcome.notes[-1] == "first layer (1) in " + (
        "float: measured faster so" if wins else "int8: float was not measured faster"
    )
    kinds = {n.op_type for n in outcome.model.graph.node}
    assert "Add" in kinds
    assert ("Relu" in kinds) is wins


@pytest.mark.parametrize(("choice", "count"), [("int8", 4), ("float", 3), ("auto", 4)])
def test_depthwise_as_told(depthwise_net, spread_feeds, choice, count: int) -> None:
    fit, judge = spread_feeds
    settings = Settings(depthwise=choice, rounding="nearest", equalize=False, ranges="minmax")
    outcome = Ladder(settings, fit=fit, judge=judge).climb(depthwise_net)
    assert outcome.coverage.startswith(f"quantized {count} of 4")


@pytest.mark.parametrize("bits", [7, 8])
def test_no_neighbours_can_overflow_on_an_old_cpu(residual_net, feeds, bits: int) -> None:
    # users-ask 12: the default export is right on every CPU.
    settings = Settings(saturating=True, weight_bits=bits)
    outcome = Ladder(settings, fit=feeds(), judge=feeds(seed=3)).climb(residual_net)
    for integers in outcome.state.encoding.weights.values():
        rows = np.moveaxis(integers.values, 1, -1).reshape(len(integers.values), -1)
        assert not can_saturate(rows).any()
    batch = next(feeds()())
    old, exact = (OldCpu(outcome.model, saturating=s).run(batch)[0] for s in (True, False))
    np.testing.assert_array_equal(old, exact)


def test_eight_safe_bits_beat_seven(residual_net, feeds) -> None:
    found = {}
    for bits in (7, 8):
        settings = Settings(weight_bits=bits, rounding="nearest", equalize=False)
        state = Ladder(settings, fit=feeds(), judge=feeds(seed=3)).climb(residual_net).state
        found[bits] = sum(
            np.square(integers.real - state.graph.weights(name)).sum()
            for name, integers in state.encoding.weights.items()
        )
    assert found[8] < 0.8 * found[7]


def test_the_pixel_grid_is_a_rung_where_colours_differ(residual_net, feeds) -> None:
    colours = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))

    def pictures(count: int, seed: int):
        def batches():
            rng = np.random.default_rng(seed)
            for _ in range(count):
                yield (colours(rng.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)),)

        return batches

    ladder = Ladder(
        Settings(preprocessing=colours, rounding="nearest", saturating=False),
        pictures(6, 0),
        pictures(2, 1),
    )
    outcome = ladder.climb(residual_net)
    rung = next(r for r in outcome.rungs if r.name == "pixel grid")
    assert rung.kept
    assert outcome.state.pixels
    scale = outcome.state.encoding.activations[outcome.state.pixels].scale
    assert scale == 1.0


def test_same_calibration_same_bytes(residual_net, feeds) -> None:
    # users-ask 27
    first, second = (
        Ladder(Settings(), fit=feeds(), judge=feeds(seed=3)).climb(residual_net).model
        for _ in range(2)
    )
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_an_exclusion_holds_through_every_rung(residual_net, feeds) -> None:
    settings = Settings(exclude=("block.conv1",))
    outcome = Ladder(settings, fit=feeds(), judge=feeds(seed=3)).climb(residual_net)
    assert outcome.coverage == ("quantized 3 of 4 weighted layers, skipped: block.conv1 (excluded)")
    with pytest.raises(LilliputError, match="'blok' matches no layer"):
        Ladder(Settings(exclude=("blok",)), feeds(), feeds()).climb(residual_net)


def test_nothing_to_quantize_is_refused(builder, feeds) -> None:
    b = builder()
    net = b.model(b.node("Relu", ["x"], "y"), 4)
    with pytest.raises(Refused, match="nothing to quantize: quantized 0 of 0 weighted layers"):
        Ladder(Settings(), feeds(), feeds()).climb(net)


def test_scales_after_float_operators_are_a_rung(builder, feeds) -> None:
    b = builder()
    spread = np.geomspace(0.02, 1, 8)[:, None, None, None]
    wide = b.conv("x", "a", (3, 8), weight=b.rng.normal(0, 1, (8, 3, 3, 3)) * spread)
    act = b.node("HardSwish", [wide], "act")
    weight = b.rng.normal(0, 1, (4, 8, 1, 1)) / spread.reshape(1, 8, 1, 1)
    net = b.model(b.conv(act, "b", (8, 4), kernel=1, weight=weight), 4)
    settings = Settings(rounding="nearest", bias_correction=False)
    outcome = Ladder(settings, feeds(count=6), feeds(seed=3)).climb(net)
    rung = outcome.rungs[-1]
    assert rung.name == "channel scales after float operators"
    assert rung.kept
    assert rung.error < 0.5 * outcome.rungs[0].error


def test_scales_that_gain_little_are_not_worth_their_operator(builder, feeds) -> None:
    b = builder()
    even = b.conv("x", "a", (3, 8), weight=b.rng.normal(0, 1, (8, 3, 3, 3)))
    act = b.node("HardSwish", [even], "act")
    net = b.model(b.conv(act, "b", (8, 4), kernel=1), 4)
    settings = Settings(rounding="nearest", bias_correction=False)
    outcome = Ladder(settings, feeds(count=6), feeds(seed=3)).climb(net)
    rung = outcome.rungs[-1]
    assert rung.name == "channel scales after float operators"
    assert not rung.kept
    assert rung.error > 0.9 * outcome.rungs[0].error


def test_a_norm_that_the_runtime_computes_as_a_convolution_is_no_layer(
    builder, feeds, tmp_path
) -> None:
    b = builder()
    spread = np.geomspace(0.02, 1, 8)[:, None, None, None]
    wide = b.conv("x", "a", (3, 8), weight=b.rng.normal(0, 1, (8, 3, 3, 3)) * spread)
    act = b.node("HardSwish", [wide], "act")
    weight = b.rng.normal(0, 1, (4, 8, 1, 1)) / spread.reshape(1, 8, 1, 1)
    net = b.model(b.conv(act, "b", (8, 4), kernel=1, weight=weight), 4)
    settings = Settings(rounding="nearest", bias_correction=False)
    outcome = Ladder(settings, feeds(count=6), feeds(seed=3)).climb(net)
    path = tmp_path / "scaled.onnx"
    write_model(outcome.model, path)
    found = coverage(path, Target())
    assert any(n.op_type == "BatchNormalization" for n in outcome.model.graph.node)
    assert found.total == 2, found.line


@pytest.fixture
def called_twice(builder) -> onnx.ModelProto:
    """A convolution between two calls of another."""
    b = builder(("n", 4, 8, 8))
    first = b.node("Relu", [b.conv("x", "c", (4, 4))], "act")
    middle = b.node("Relu", [b.conv(first, "between", (4, 4))], "middle")
    last = b.node("Conv", [middle, "c.weight", "c.bias"], "y", name="again", pads=[1, 1, 1, 1])
    return b.model(b.conv(b.node("Relu", [last], "last"), "end", (4, 4)), 4)


def test_both_calls_of_an_excluded_module_stay_float(called_twice, feeds) -> None:
    shape = (4, 8, 8)
    ladder = Ladder(
        Settings(exclude=("c.weight",)), fit=feeds(shape=shape), judge=feeds(shape=shape, seed=3)
    )
    outcome = ladder.climb(called_twice)
    assert any(rung.kept for rung in outcome.rungs[1:]), "placed anew"
    floats = [n for n in outcome.model.graph.node if n.op_type == "Conv" and "c." in n.input[1]]
    assert len(floats) == 2
    assert "quantized 2 of 4 weighted layers" in outcome.coverage


def test_fall_back_leaves_alone_what_is_excluded(builder, feeds) -> None:
    """An excluded layer whose input is in int8 for another one's sake has no integers."""
    b = builder()
    start = b.node("Relu", [b.conv("x", "start", (3, 4))], "act")
    y = b.node("Add", [b.conv(start, "a", (4, 4)), b.conv(start, "b", (4, 4))], "sum")
    ladder = Ladder(
        Settings(exclude=("b",)),
        fit=feeds(),
        judge=feeds(seed=3),
        drop=lambda _: 1.0,
        max_drop=0.5,
    )
    outcome = ladder.climb(b.model(b.conv(y, "end", (4, 4)), 4))
    assert outcome.rungs[-1].name.endswith("in float")
    assert not outcome.met


def test_one_weight_in_two_orientations_is_int8_in_one(builder, feeds, run) -> None:
    b = builder(("n", 16))
    weight = b.const("fc.weight", b.rng.normal(0, 0.3, (16, 16)).astype(np.float32))
    hidden = b.node("Relu", [b.node("Gemm", ["x", weight], "made", transB=1)], "act")
    model = b.model(b.node("Gemm", [hidden, weight], "y", name="/decoder/Gemm"))
    shape = (16,)
    outcome = Ladder(Settings(), fit=feeds(shape=shape), judge=feeds(shape=shape, seed=3)).climb(
        model
    )
    assert "the other way round" in outcome.coverage
    x = next(feeds(shape=shape, seed=5)())[0]
    np.testing.assert_allclose(run(outcome.model, x), run(model, x), atol=0.2)
