"""Equalization leaves the function alone and evens the channels out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from lilliput.encode.equalize import (
    Coupling,
    channel_ranges,
    column_sizes,
    equalize,
    equalized,
    equalizing_scales,
    scale_float_inputs,
)
from lilliput.encode.layers import layers_of
from lilliput.encode.placement import float_fed, place
from lilliput.encode.prepare import prepare
from lilliput.graph import Graph


def unchanged(run, graph: Graph, after: Graph, x: np.ndarray) -> None:
    expected = run(graph.model(), x)
    np.testing.assert_allclose(run(after.model(), x), expected, rtol=2e-3, atol=1e-4)


def spread(ranges: dict[str, np.ndarray], tensor: str) -> float:
    return float(ranges[tensor].max() / ranges[tensor].min())


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_a_depthwise_net_is_evened_out(depthwise_net, feeds, run, strength: float) -> None:
    batches = feeds(shape=(8, 8, 8))
    graph = Graph.of(prepare(depthwise_net).model)
    tensors = place(graph).representatives
    after = equalized(graph, tensors, batches, strength=strength)
    unchanged(run, graph, after, next(batches())[0])
    before, now = (channel_ranges(g, tensors, batches) for g in (graph, after))
    assert spread(now, "expand_act") < spread(before, "expand_act")
    assert spread(before, "expand_act") > 50


def test_a_residual_stream_is_scaled_as_one(residual_net, feeds, run) -> None:
    graph = Graph.of(prepare(residual_net).model)
    coupling = Coupling(graph)
    stream = coupling.groups("stem_act")
    np.testing.assert_array_equal(stream, coupling.groups("block.conv2_out"))
    np.testing.assert_array_equal(stream, coupling.groups("flat"))
    assert not set(stream) & set(coupling.groups("inner_act"))
    assert (coupling.groups("x") == -1).all()
    assert (coupling.groups("head_out") == -1).all()
    factors = dict(zip(stream.tolist(), np.geomspace(0.25, 4, 8), strict=True))
    after = equalize(graph, factors, coupling)
    unchanged(run, graph, after, next(feeds()())[0])
    assert not np.allclose(after.weights("stem.weight"), graph.weights("stem.weight"))


def test_an_option_a_shortcut_shifts_channels(builder, feeds, run) -> None:
    b = builder()
    stem = b.node("Relu", [b.conv("x", "a", (3, 4))], "act")
    b.const("pads", np.array([0, 2, 0, 0, 0, 2, 0, 0], np.int64))
    short = b.node("Pad", [stem, "pads"], "short")
    y = b.node("Relu", [b.node("Add", [b.conv(stem, "b", (4, 8)), short], "sum")], "sum_act")
    graph = Graph.of(prepare(b.model(b.conv(y, "c", (8, 3)), 4)).model)
    coupling = Coupling(graph)
    np.testing.assert_array_equal(coupling.groups("sum")[2:6], coupling.groups("act"))
    factors = {int(g): 2.0 + n for n, g in enumerate(coupling.groups("sum"))}
    unchanged(run, graph, equalize(graph, factors, coupling), next(feeds()())[0])


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_a_pixel_shuffle_ties_the_channels_it_mixes(builder, feeds, run, mode: str) -> None:
    b = builder()
    wide = b.conv("x", "a", (3, 8))
    y = b.node("DepthToSpace", [wide], "up", blocksize=2, mode=mode)
    graph = Graph.of(prepare(b.model(b.conv(y, "b", (2, 3)), 4)).model)
    coupling = Coupling(graph)
    groups = coupling.groups("up")
    assert sorted(np.unique(coupling.groups("a_out")).tolist()) == sorted(groups.tolist())
    factors = {int(groups[0]): 0.5, int(groups[1]): 3.0}
    unchanged(run, graph, equalize(graph, factors, coupling), next(feeds()())[0])


def test_concatenated_channels_keep_their_groups(builder, feeds, run) -> None:
    b = builder()
    first, second = b.conv("x", "a", (3, 4)), b.conv("x", "b", (3, 2))
    y = b.node("Concat", [first, second], "both", axis=1)
    graph = Graph.of(prepare(b.model(b.conv(y, "c", (6, 6), groups=2), 4)).model)
    coupling = Coupling(graph)
    np.testing.assert_array_equal(coupling.groups("both")[4:], coupling.groups("b_out"))
    factors = {int(g): 1.5 + n for n, g in enumerate(coupling.groups("both"))}
    unchanged(run, graph, equalize(graph, factors, coupling), next(feeds()())[0])


@pytest.mark.parametrize("op", ["Sigmoid", "HardSwish", "Clip"])
def test_what_does_not_scale_freezes_its_channels(builder, op: str) -> None:
    b = builder()
    inputs = [b.conv("x", "a", (3, 4))]
    if op == "Clip":
        inputs += [b.const("low", np.float32(0)), b.const("high", np.float32(6))]
    y = b.node(op, inputs, "act")
    coupling = Coupling(Graph.of(b.model(b.conv(y, "b", (4, 4)), 4)))
    assert (coupling.groups("a_out") == -1).all()
    assert (coupling.groups("act") == -1).all()


def test_shared_weights_scale_alike(builder, feeds, run) -> None:
    b = builder(("n", 4, 8, 8))
    first = b.node("Relu", [b.conv("x", "stem", (4, 4))], "act1")
    second = b.node("Relu", [b.conv(first, "a", (4, 4))], "act2")
    third = b.node("Conv", [second, "a.weight", "a.bias"], "third", pads=[1, 1, 1, 1])
    graph = Graph.of(prepare(b.model(b.conv(third, "end", (4, 2)), 4)).model)
    coupling = Coupling(graph)
    np.testing.assert_array_equal(coupling.groups("act1"), coupling.groups("act2"))
    factors = {int(g): 2.0 + n for n, g in enumerate(coupling.groups("act1"))}
    x = next(feeds(shape=(4, 8, 8))())[0]
    unchanged(run, graph, equalize(graph, factors, coupling), x)


def test_a_batch_norm_that_stays_takes_part(builder, feeds, run) -> None:
    b = builder()
    act = b.node("HardSwish", [b.conv("x", "a", (3, 4))], "act")
    normed = b.norm(act, "bn", 4)
    graph = Graph.of(prepare(b.model(b.conv(normed, "b", (4, 4)), 4)).model)
    coupling = Coupling(graph)
    factors = {int(g): 2.0 + n for n, g in enumerate(coupling.groups("bn_out"))}
    assert len(factors) == 4
    unchanged(run, graph, equalize(graph, factors, coupling), next(feeds()())[0])


def test_small_ranges_with_large_weights_grow(depthwise_net, feeds) -> None:
    graph = Graph.of(prepare(depthwise_net).model)
    coupling = Coupling(graph)
    ranges = channel_ranges(graph, ["depthwise_act"], feeds(shape=(8, 8, 8)))
    factors = equalizing_scales(graph, coupling, ranges)
    groups = coupling.groups("depthwise_act")
    assert factors[int(groups[0])] > 3 * factors[int(groups[-1])]


def test_column_sizes_count_the_largest_share(residual_net) -> None:
    graph = Graph.of(prepare(residual_net).model)
    layer = next(x for x in layers_of(graph) if x.path == "head")
    weight = np.abs(graph.weights(layer.weight))
    np.testing.assert_allclose(
        column_sizes(graph, layer), (weight / weight.max(1, keepdims=True)).max(0), rtol=1e-6
    )


def test_the_original_graph_is_left_alone(residual_net: onnx.ModelProto, feeds) -> None:
    graph = Graph.of(prepare(residual_net).model)
    before = graph.model().SerializeToString()
    equalized(graph, place(graph).representatives, feeds())
    assert graph.model().SerializeToString() == before


@pytest.mark.parametrize("groups", [1, 2])
def test_a_scale_is_put_after_a_float_operator(builder, feeds, run, groups: int) -> None:
    b = builder()
    spread = np.geomspace(0.05, 1, 4)
    wide = b.conv(
        "x", "a", (3, 4), weight=b.rng.normal(0, 1, (4, 3, 3, 3)) * spread[:, None, None, None]
    )
    act = b.node("HardSwish", [wide], "act")
    weight = b.rng.normal(0, 1, (4, 4 // groups, 3, 3))
    graph = Graph.of(
        prepare(b.model(b.conv(act, "b", (4, 4), groups=groups, weight=weight), 4)).model
    )
    fed = float_fed(graph, place(graph))
    assert [layer.path for layer in fed] == ["b"]
    ranges = channel_ranges(graph, ["act"], feeds())
    after = scale_float_inputs(graph, fed, ranges, strength=1.0)
    unchanged(run, graph, after, next(feeds()())[0])
    norm = next(n for n in after.nodes if n.op_type == "BatchNormalization")
    scaled = channel_ranges(after, [norm.output[0]], feeds())[norm.output[0]]
    assert scaled.max() / scaled.min() < 0.5 * ranges["act"].max() / ranges["act"].min()


def test_a_shared_weight_is_not_undone_twice(builder, feeds) -> None:
    b = builder(("n", 4, 8, 8))
    first = b.node("HardSwish", [b.conv("x", "a", (4, 4))], "act1")
    second = b.node("HardSwish", [b.conv(first, "b", (4, 4))], "act2")
    y = b.node("Conv", [second, "b.weight", "b.bias"], "y", pads=[1, 1, 1, 1])
    graph = Graph.of(prepare(b.model(y, 4)).model)
    fed = float_fed(graph, place(graph))
    ranges = channel_ranges(graph, ["act1", "act2"], feeds(shape=(4, 8, 8)))
    after = scale_float_inputs(graph, fed, ranges)
    assert len(after.nodes) == len(graph.nodes)


@pytest.mark.parametrize(
    ("facts", "bias", "shared"),
    [
        pytest.param({"transB": 0}, np.ones(6), True, id="a weight the other way round"),
        pytest.param({"transB": 1, "transA": 1}, np.ones(6), False, id="channels in rows"),
        pytest.param({"transB": 1}, np.arange(6.0).reshape(6, 1), False, id="a bias for each row"),
    ],
)
def test_channels_of_unusual_layers_are_not_scaled(builder, run, facts, bias, shared) -> None:
    b = builder((6, 6))
    start = b.node("Relu", [b.linear("x", "start", (6, 6))], "start_act")
    first = b.node("Relu", [b.linear(start, "a", (6, 6))], "first")
    weight = "a.weight" if shared else b.const("b.weight", b.rng.normal(size=(6, 6)).astype("f"))
    made = b.node("Gemm", [first, weight, b.const("bias", bias.astype("f"))], "made", **facts)
    graph = Graph.of(b.model(b.linear(b.node("Relu", [made], "second"), "end", (6, 6))))
    coupling = Coupling(graph)
    assert (coupling.groups("first") == -1).all()
    assert (coupling.groups("second") == -1).all()
    x = np.random.default_rng(0).normal(size=(6, 6)).astype("f")
    after = equalized(graph, ["first", "second"], lambda: iter([(x,)]))
    np.testing.assert_array_equal(run(after.model(), x), run(graph.model(), x))


@pytest.mark.parametrize("also", ["weight", "bias"])
def test_channels_of_a_constant_that_others_read_are_not_scaled(builder, run, also) -> None:
    """As of an embedding that is the last layer's weight, too."""
    b = builder(("n", 6))
    first = b.node("Relu", [b.linear("x", "a", (6, 6))], "act")
    second = b.linear(first, "b", (6, 6))
    rows = b.node("ReduceSum", [f"b.{also}", b.const("axes", [0])], "rows", keepdims=0)
    graph = Graph.of(b.model(b.node("Mul", [b.linear(second, "c", (6, 6)), rows], "y")))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    after = equalized(graph, ["act", second], lambda: iter([(x,)]), strength=1.0)
    unchanged(run, graph, after, x)
