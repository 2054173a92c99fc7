"""The written int8 file: what is in it, what it computes, what runs in integers."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from lilliput.encode.fitting import nearest_weights
from lilliput.encode.layers import layers_of, match_layers
from lilliput.encode.placement import place, useful_limits
from lilliput.encode.prepare import prepare
from lilliput.encode.qdq import Encoding, Integers, bias_of, holding, write_qdq
from lilliput.encode.ranges import affine_of, observe
from lilliput.encode.rounding import Grid
from lilliput.errors import Refused
from lilliput.graph import Graph


def quantized(model, batches, floats=None, *, paired: bool = True, bits: int = 8):
    graph = Graph.of(prepare(model).model)
    placement = place(graph, floats)
    histograms = observe(graph, placement.representatives, batches)
    activations = {n: affine_of(histograms[n], "minmax") for n in placement.representatives}
    weights = nearest_weights(graph, placement, lambda _: Grid.of(bits, paired=paired))
    encoding = Encoding(activations, weights)
    return write_qdq(graph, placement, encoding), graph, placement, encoding


def fused(model: onnx.ModelProto, folder: Path) -> collections.Counter[str]:
    """Operators of the graph that ONNX Runtime really runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return collections.Counter(n.op_type for n in onnx.load(folder / "optimized.onnx").graph.node)


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_everything_runs_in_integers(residual_net, feeds, tmp_path) -> None:
    model, _, placement, _ = quantized(residual_net, feeds())
    onnx.checker.check_model(model, full_check=True)
    assert placement.coverage == "quantized 4 of 4 weighted layers"
    ops = fused(model, tmp_path)
    assert ops["QLinearConv"] == 3
    assert ops["QLinearAdd"] == 1
    assert ops["QLinearGlobalAveragePool"] == 1
    assert ops["QGemm"] == 1
    assert not ops.keys() & {"Conv", "Relu", "Gemm", "Add", "DequantizeLinear"}


def test_close_to_float_and_names_kept(residual_net, feeds, run) -> None:
    model, graph, *_ = quantized(residual_net, feeds())
    x = next(feeds(seed=5)())[0]
    exact, ours = run(graph.model(), x), run(model, x)
    assert np.linalg.norm(ours - exact) < 0.05 * np.linalg.norm(exact)
    assert [v.name for v in model.graph.input] == ["x"]
    assert [v.name for v in model.graph.output] == ["head_out"]


def test_integers_on_disk_and_no_float_copies(residual_net, feeds) -> None:
    # users-ask 21
    model, graph, placement, _ = quantized(residual_net, feeds())
    stored = initializers(model)
    floats = {n: v for n, v in stored.items() if v.dtype == np.float32}
    assert all(v.ndim <= 1 for v in floats.values())
    assert all(name.endswith("_scale") for name in floats)
    kept = sum(v.size for v in stored.values() if v.dtype == np.int8 and v.ndim > 1)
    assert kept == sum(graph.weights(layer.weight).size for layer in placement.layers)


def test_a_large_conv_net_shrinks_to_a_third(builder, feeds, tmp_path) -> None:
    b = builder()
    y = "x"
    for n, channels in enumerate([(3, 128), (128, 128), (128, 128)]):
        y = b.node("Relu", [b.conv(y, f"c{n}", channels)], f"a{n}")
    net = b.model(y, 4)
    model, *_ = quantized(net, feeds(count=1, size=2))
    assert len(net.SerializeToString()) > 1e6
    assert len(model.SerializeToString()) <= 0.35 * len(net.SerializeToString())


def test_the_integers_decode_to_the_weights(residual_net, feeds) -> None:
    _, graph, placement, encoding = quantized(residual_net, feeds(), paired=False)
    for layer in placement.layers:
        integers = encoding.weights[layer.weight]
        exact = graph.weights(layer.weight)
        shape = [1] * exact.ndim
        shape[layer.axis] = -1
        gap = np.abs(integers.real - exact)
        assert (gap <= 0.51 * integers.scales.reshape(shape)).all()
        assert integers.values.dtype == np.int8


def test_every_number_of_a_tiny_net_by_hand(builder, run) -> None:
    """One 1x1 convolution: quantize, multiply, add, requantize, all in whole numbers."""
    b = builder(("n", 2, 1, 1))
    weight = np.array([[1.27, -0.5]]).reshape(1, 2, 1, 1)
    net = b.model(b.conv("x", "c", (2, 1), kernel=1, weight=weight, bias=np.array([0.3])), 4)
    lo, hi = np.full((1, 2, 1, 1), -1, np.float32), np.full((1, 2, 1, 1), 1.55, np.float32)
    model, *_ = quantized(net, lambda: iter([(lo,), (hi,)]), paired=False)
    stored = initializers(model)
    assert stored["x_scale"] == pytest.approx(0.01)
    assert stored["x_zero_point"] == 100
    np.testing.assert_array_equal(stored["c.weight_quantized"].reshape(-1), [127, -50])
    np.testing.assert_array_equal(stored["/c/Conv_bias_quantized"], [3000])
    # 0.25 → 25 + 100, 0.5 → 50 + 100: 25 * 127 - 50 * 50 + 3000 = 3675, times 0.0001.
    x = np.array([0.25, 0.5], np.float32).reshape(1, 2, 1, 1)
    step = float(stored["c_out_scale"])
    assert run(model, x).item() == pytest.approx(round(0.3675 / step) * step, abs=1e-6)


@pytest.mark.parametrize("excluded", ["block.conv1", "head"])
def test_an_excluded_layer_is_float_in_the_file(residual_net, feeds, run, excluded) -> None:
    # users-ask 25: the effect is looked up in the output.
    graph = Graph.of(prepare(residual_net).model)
    floats = dict.fromkeys(match_layers(layers_of(graph), [excluded]), "excluded")
    model, _, placement, _ = quantized(residual_net, feeds(), floats)
    stored = initializers(model)
    np.testing.assert_array_equal(stored[f"{excluded}.weight"], graph.weights(f"{excluded}.weight"))
    assert placement.coverage == (
        f"quantized 3 of 4 weighted layers, skipped: {excluded} (excluded)"
    )
    assert np.isfinite(run(model, next(feeds()())[0])).all()


def test_float_neighbours_read_the_float_tensor(builder, feeds, run) -> None:
    """A tensor that a float node makes is quantized for int8 readers only."""
    b = builder()
    act = b.node("HardSwish", [b.conv("x", "a", (3, 4))], "act")
    deep = b.conv(act, "b", (4, 4))
    y = b.node("HardSwish", [b.node("Sub", [deep, act], "gap")], "y")
    model, graph, *_ = quantized(b.model(y, 4), feeds())
    sub = next(n for n in model.graph.node if n.op_type == "Sub")
    assert sub.input[1] == "act"
    x = next(feeds()())[0]
    exact = run(graph.model(), x)
    assert np.linalg.norm(run(model, x) - exact) < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize("clip", [False, True])
def test_an_activation_that_quantizing_makes_redundant_goes(builder, feeds, run, clip) -> None:
    b = builder()
    conv = b.conv("x", "a", (3, 4))
    if clip:
        b.const("zero", np.array(0.0, np.float32))
        b.const("six", np.array(6.0, np.float32))
        act = b.node("Clip", [conv, "zero", "six"], "act")
    else:
        act = b.node("Relu", [conv], "act")
    model, *_ = quantized(b.model(b.conv(act, "b", (4, 4)), 4), feeds())
    assert not {"Relu", "Clip"} & {n.op_type for n in model.graph.node}
    assert (run(model, next(feeds()())[0])).size


def test_a_clip_that_excludes_zero_stays(builder, feeds) -> None:
    b = builder()
    conv = b.conv("x", "a", (3, 4))
    b.const("one", np.array(0.5, np.float32))
    b.const("six", np.array(6.0, np.float32))
    act = b.node("Clip", [conv, "one", "six"], "act")
    model, *_ = quantized(b.model(b.conv(act, "b", (4, 4)), 4), feeds())
    assert "Clip" in {n.op_type for n in model.graph.node}


def test_a_relu_after_a_float_result_is_put_back(builder, feeds, run) -> None:
    """A Gemm that nothing reads in int8 gives float: its Relu still has work to do."""
    b = builder(("n", 6))
    y = b.node("Relu", [b.linear("x", "fc", (6, 4))], "y")
    model, graph, *_ = quantized(b.model(y), feeds(shape=(6,)))
    x = next(feeds(shape=(6,))())[0]
    ours = run(model, x)
    assert ours.min() == 0.0
    np.testing.assert_allclose(ours, run(graph.model(), x), atol=0.05)


def test_data_movers_share_one_scale(builder, feeds, tmp_path) -> None:
    b = builder()
    conv = b.conv("x", "a", (3, 4))
    pooled = b.node("MaxPool", [conv], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    turned = b.node("Transpose", [pooled], "turned", perm=[0, 1, 3, 2])
    model, _, placement, _ = quantized(b.model(b.conv(turned, "b", (4, 4)), 4), feeds())
    assert placement.tensors["pooled"] == placement.tensors["turned"] == "a_out"
    assert fused(model, tmp_path)["QLinearConv"] == 2


@pytest.mark.parametrize("op", ["Concat", "Mul", "Sigmoid", "LeakyRelu", "AveragePool"])
def test_other_operators_have_scales_of_their_own(builder, feeds, run, tmp_path, op) -> None:
    b = builder()
    first, second = b.conv("x", "a", (3, 4)), b.conv("x", "b", (3, 4))
    inputs = [first, second] if op in ("Concat", "Mul") else [first]
    facts = {"Concat": {"axis": 1}, "AveragePool": {"kernel_shape": [2, 2]}}.get(op, {})
    mixed = b.node(op, inputs, "mixed", **facts)
    y = b.conv(mixed, "c", (8 if op == "Concat" else 4, 4))
    if op not in ("Concat", "Mul"):
        b.nodes = [n for n in b.nodes if n.output[0] != "b_out"]
    model, graph, placement, _ = quantized(b.model(y, 4), feeds())
    assert placement.tensors["mixed"] == "mixed"
    assert fused(model, tmp_path)[f"QLinear{op}"] == 1
    x = next(feeds()())[0]
    exact = run(graph.model(), x)
    assert np.linalg.norm(run(model, x) - exact) < 0.06 * np.linalg.norm(exact)


def test_zero_coverage_is_refused_with_the_reasons(builder, feeds) -> None:
    # users-ask 6
    b = builder()
    weight = b.rng.normal(size=(3, 4, 2, 2)).astype(np.float32)
    y = b.node("ConvTranspose", ["x", b.const("up.weight", weight)], "y", strides=[2, 2])
    with pytest.raises(Refused, match=r"nothing to quantize: quantized 0 of 1 weighted layers"):
        quantized(b.model(y, 4), feeds())


@pytest.mark.parametrize(
    ("facts", "reason"), [({"alpha": 0.5}, "alpha, beta"), ({"transA": 1}, "transA")]
)
def test_layers_without_an_int8_kernel_say_why(builder, facts, reason) -> None:
    b = builder((4, 4))
    b.const("fc.weight", np.ones((4, 4), np.float32))
    y = b.node("Gemm", ["x", "fc.weight"], "y", **facts)
    assert reason in place(Graph.of(b.model(y))).skipped["fc"]


def test_a_one_dimensional_convolution_is_skipped(builder) -> None:
    b = builder(("n", 3, 8))
    b.const("c.weight", np.ones((4, 3, 3), np.float32))
    y = b.node("Conv", ["x", "c.weight"], "y")
    assert "this has 1 dimensions" in place(Graph.of(b.model(y, 3))).skipped["c"]


def test_a_long_list_of_skipped_layers_is_cut(builder) -> None:
    b = builder()
    y = "x"
    for n in range(11):
        weight = b.const(f"t{n}.weight", np.ones((3, 3, 1, 1), np.float32))
        y = b.node("ConvTranspose", [y, weight], f"y{n}")
    assert place(Graph.of(b.model(y, 4))).coverage.endswith(" and 3 more")


def test_a_shared_weight_is_stored_once(builder, feeds) -> None:
    b = builder(("n", 4, 8, 8))
    first = b.node("Relu", [b.conv("x", "a", (4, 4))], "act")
    y = b.node("Conv", [first, "a.weight", "a.bias"], "y", pads=[1, 1, 1, 1])
    model, *_ = quantized(b.model(y, 4), feeds(shape=(4, 8, 8)))
    stored = initializers(model)
    assert sum(v.dtype == np.int8 and v.ndim == 4 for v in stored.values()) == 1
    assert sum(v.dtype == np.int32 for v in stored.values()) == 2


@pytest.mark.parametrize(
    "row", [0.0, 1e-9, 2e-8], ids=["pruned away", "a collapsed norm", "hardly there"]
)
def test_a_bias_survives_beside_tiny_weights(builder, feeds, run, row: float) -> None:
    """At the scale of such a row a bias would not fit into 32 bits, or lose its precision."""
    b = builder()
    weight = b.rng.normal(0, 0.3, (4, 3, 3, 3))
    weight[1] = row * np.sign(weight[1])
    first = b.conv("x", "a", (3, 4), weight=weight, bias=np.array([0.1, 0.041, 2.0, -0.3]))
    pooled = b.node("Flatten", [b.node("GlobalAveragePool", [first], "pool")], "flat")
    b.const("fc.weight", np.stack([b.rng.normal(0, 0.3, 4), np.full(4, row)]).astype(np.float32))
    b.const("fc.bias", np.array([0.2, 0.0371], np.float32))
    y = b.node("Gemm", [pooled, "fc.weight", "fc.bias"], "y", name="/fc/Gemm", transB=1)
    model, graph, *_ = quantized(b.model(y), feeds())
    x = next(feeds()())[0]
    ours, theirs = run(model, x), run(graph.model(), x)
    np.testing.assert_allclose(ours[:, 1], theirs[:, 1], rtol=1e-4)
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], atol=0.02)


def test_a_layer_whose_input_was_always_zero_gives_its_bias(builder, feeds, run) -> None:
    b = builder()
    dead = b.node("Relu", [b.conv("x", "a", (3, 4), bias=np.full(4, -1e3))], "act")
    bias = np.array([1.0, 2.0, 3.0, 4.0])
    model, graph, *_ = quantized(b.model(b.conv(dead, "b", (4, 4), bias=bias), 4), feeds())
    x = next(feeds()())[0]
    np.testing.assert_allclose(run(model, x), run(graph.model(), x), atol=0.02)


def test_scales_that_hold_their_biases_stay() -> None:
    values = np.array([[127, -3], [0, 0], [5, 127]], np.int8)
    integers = Integers(values, np.array([0.5, 1.0, 1e-9], np.float32), 0)
    assert holding(integers, np.array([1e6, 0.0, 1.0])) is integers
    held = holding(integers, np.array([0.0, 16.0, 127.0]))
    np.testing.assert_array_equal(held.scales, np.float32([0.5, 16 / 2**24, 127 / 2**30]))
    np.testing.assert_array_equal(held.values, [[127, -3], [0, 0], [0, 1]])


def test_a_matmul_gives_float_where_floats_read_it(builder, feeds, run) -> None:
    b = builder(("n", 5, 6))
    weight = b.const("w", b.rng.normal(size=(6, 4)).astype(np.float32))
    y = b.node("Softmax", [b.node("MatMul", ["x", weight], "mixed")], "y")
    model, graph, placement, _ = quantized(b.model(y, 3), feeds(shape=(5, 6)))
    assert placement.layers[0].axis == 1
    assert "mixed" not in placement.tensors
    x = next(feeds(shape=(5, 6))())[0]
    np.testing.assert_allclose(run(model, x), run(graph.model(), x), atol=0.05)


def test_two_files_of_the_same_numbers_are_the_same_bytes(residual_net, feeds) -> None:
    # users-ask 27
    first, second = (
        quantized(residual_net, feeds())[0].SerializeToString(deterministic=True) for _ in "ab"
    )
    assert first == second


def test_a_layer_without_bias_counts_as_zero(builder) -> None:
    b = builder()
    b.const("c.weight", np.ones((4, 3, 1, 1), np.float32))
    graph = Graph.of(b.model(b.node("Conv", ["x", "c.weight"], "y"), 4))
    np.testing.assert_array_equal(bias_of(graph, layers_of(graph)[0]), np.zeros(4))


def test_output_types_are_float(residual_net, feeds) -> None:
    model, *_ = quantized(residual_net, feeds())
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_what_an_activation_hides_needs_no_levels(builder, feeds) -> None:
    b = builder()
    wide = b.conv("x", "a", (3, 4), weight=5 * b.rng.normal(size=(4, 3, 3, 3)))
    act = b.node("HardSwish", [wide], "act")
    graph = Graph.of(prepare(b.model(b.conv(act, "b", (4, 4)), 4)).model)
    limits = useful_limits(graph, place(graph))
    assert limits["a_out"] == (-3.0, float("inf"))
    assert limits["act"] == (float("-inf"), float("inf"))
    histogram = observe(graph, ["a_out"], feeds())["a_out"]
    assert histogram.low < -20
    affine = affine_of(histogram, "minmax", limits["a_out"])
    assert affine.scale * affine.zero_point == pytest.approx(3.0, abs=affine.scale)


@pytest.mark.parametrize(
    ("weight", "bias", "reason"),
    [
        (np.ones((4, 4), np.float16), np.ones(4, np.float16), "float16"),
        (np.full((4, 4), np.nan, np.float32), np.ones(4, np.float32), "not finite"),
        (np.ones((4, 4), np.float32), np.ones((4, 1), np.float32), "not one number a channel"),
    ],
)
def test_weights_that_int8_cannot_hold_say_why(builder, weight, bias, reason) -> None:
    b = builder((4, 4))
    b.const("fc.weight", weight)
    y = b.node("Gemm", ["x", "fc.weight", b.const("fc.bias", bias)], "y")
    assert reason in place(Graph.of(b.model(y))).skipped["fc"]
