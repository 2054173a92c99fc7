"""Every rewrite makes the graph shorter and never changes what it computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lilliput.graph import Graph
from lilliput.graph.constants import GROWTH_BYTES
from lilliput.graph.tidy import tidy


def ops(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def same(run, before: onnx.ModelProto, shape=(2, 3, 8, 8)) -> Graph:
    """The graph tidied, after it was checked and found to compute the same."""
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    graph = Graph.of(before)
    tidy(graph)
    onnx.checker.check_model(graph.model(), full_check=True)
    np.testing.assert_allclose(run(graph.model(), x), run(before, x), rtol=1e-4, atol=1e-5)
    return graph


# Constants


def test_constants_are_computed_and_identities_go(builder, run) -> None:
    b = builder()
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [0, -1])
    b.nodes.append(helper.make_node("Constant", [], ["target"], value=shape))
    same_target = b.node("Identity", ["target"], "target_again")
    named = b.node("Identity", [b.conv("x", "a", (3, 4))], "named")
    y = b.node("Reshape", [b.node("Dropout", [named], "dropped"), same_target], "y")
    assert ops(same(run, b.model(y))) == ["Conv", "Reshape"]


def test_an_identity_that_is_an_output_keeps_its_name(builder, run) -> None:
    b = builder()
    y = b.node("Identity", [b.conv("x", "a", (3, 4))], "y")
    after = same(run, b.model(y, 4))
    assert ops(after) == ["Conv"]
    assert after.output_names == ("y",)


def test_what_no_kernel_computes_stays_a_node(builder) -> None:
    b = builder()
    b.node("Cast", [b.const("three", np.float32(3.0))], "short", to=TensorProto.BFLOAT16)
    # ONNX Runtime multiplies no bfloat16; the factor beside it is computed all the same.
    b.node("Mul", ["short", "short"], "product")
    b.node("Exp", [b.const("two", np.float32(2.0))], "factor")
    b.node("Mul", [b.node("Cast", ["product"], "f", to=TensorProto.FLOAT), "factor"], "g")
    graph = Graph.of(b.model(b.node("Mul", ["x", "g"], "y"), 4))
    tidy(graph)
    assert "Exp" not in ops(graph)
    assert graph.producers["product"].op_type == "Mul"


def test_sequences_of_constants_stay_nodes(builder, run) -> None:
    b = builder(("n", 3, 8, 2))
    b.node("SequenceConstruct", [b.const("one", np.float32([1.0])), "one"], "both")
    y = b.node("Mul", ["x", b.node("ConcatFromSequence", ["both"], "twice", axis=0)], "z")
    graph = same(run, b.model(b.node("ReduceMax", [y], "y", keepdims=0), 0), (2, 3, 8, 2))
    assert "SequenceConstruct" in ops(graph)


def test_what_grows_a_lot_is_not_computed(builder, run) -> None:
    b = builder(("n", 1))
    b.const("size", np.array([GROWTH_BYTES], np.int64))
    wide = b.node("ConstantOfShape", ["size"], "zeros")
    assert "ConstantOfShape" in ops(same(run, b.model(b.node("Add", ["x", wide], "y")), (2, 1)))


def test_sizes_are_looked_at_before_anything_is_computed(builder) -> None:
    # A file of a hundred bytes could ask for terabytes, and compute the size itself.
    b = builder()
    b.const("half", np.array([1 << 20, 1 << 20], np.int64))
    b.node("Add", ["half", "half"], "size")
    zeros = b.node("ConstantOfShape", ["size"], "zeros")
    b.const("two", np.array([1 << 30, 1], np.int64))
    tiled = b.node("Tile", [b.const("row", np.ones((1, 1 << 10), np.float32)), "two"], "tiled")
    b.const("tall", np.array([1 << 30, 1], np.int64))
    grown = b.node("Expand", ["row", "tall"], "grown")
    maxima = [b.node("ReduceMax", [value], f"{value}_max") for value in (zeros, tiled, grown)]
    total = b.node("Sum", maxima, "sum")
    graph = Graph.of(b.model(b.node("Mul", ["x", total], "y"), 4))
    tidy(graph)
    assert {"ConstantOfShape", "Tile", "Expand"} <= set(ops(graph))


@pytest.mark.parametrize("op", ["RandomNormal", "Bernoulli", "Dropout"])
def test_chance_is_not_frozen(builder, op: str) -> None:
    b = builder()
    b.const("half", np.full((1, 3, 8, 8), 0.5, np.float32))
    inputs = {"RandomNormal": [], "Bernoulli": ["half"], "Dropout": ["half", "ratio", "train"]}
    b.const("ratio", np.float32(0.5))
    b.const("train", np.array(True))
    facts = {"shape": [1, 3, 8, 8]} if op == "RandomNormal" else {}
    b.node(op, inputs[op], "chance", **facts)
    graph = Graph.of(b.model(b.node("Mul", ["x", "chance"], "y"), 4))
    tidy(graph)
    assert op in ops(graph)


# Identities


def test_weights_that_are_equal_by_chance_become_two(builder) -> None:
    b = builder(("n", 4, 8, 8))
    b.node("Identity", ["a.weight"], "b.weight")
    first = b.node("Relu", [b.conv("x", "a", (4, 4))], "act")
    y = b.node("Conv", [first, "b.weight"], "y", pads=[1, 1, 1, 1])
    model = b.model(y, 4)
    alias, own = Graph.of(model), Graph.of(model)
    tidy(alias)
    tidy(own, shared=lambda source, name: False)
    assert [node.input[1] for node in (alias.nodes[0], alias.nodes[2])] == ["a.weight"] * 2
    assert [node.input[1] for node in (own.nodes[0], own.nodes[2])] == ["a.weight", "b.weight"]


# Batch norms and scales


def test_a_norm_goes_forward_if_nothing_is_padded(builder, run) -> None:
    b = builder()
    act = b.node("Relu", [b.conv("x", "a", (3, 4))], "act")
    y = b.conv(b.norm(act, "bn", 4), "b", (4, 6), kernel=1, groups=2)
    assert ops(same(run, b.model(y, 4))) == ["Conv", "Relu", "Conv"]


def test_a_norm_before_padding_stays(builder, run) -> None:
    b = builder()
    act = b.node("Relu", [b.conv("x", "a", (3, 4))], "act")
    y = b.conv(b.norm(act, "bn", 4), "b", (4, 4))
    assert "BatchNormalization" in ops(same(run, b.model(y, 4)))


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize("shape", [(), (1, 4, 1, 1), (4, 1, 1)])
def test_affine_maps_after_a_layer_go_into_it(builder, run, op: str, shape) -> None:
    b = builder()
    value = b.rng.uniform(0.5, 2, shape).astype(np.float32)
    y = b.node(op, [b.conv("x", "a", (3, 4)), b.const("c", value)], "y")
    assert ops(same(run, b.model(y, 4))) == ["Conv"]


def test_a_constant_along_the_width_is_not_taken_for_channels(builder, run) -> None:
    b = builder()
    value = b.rng.uniform(0.5, 2, (8,)).astype(np.float32)
    y = b.node("Mul", [b.conv("x", "a", (3, 8)), b.const("c", value)], "y")
    assert ops(same(run, b.model(y, 4))) == ["Conv", "Mul"]


def test_shared_weights_are_not_scaled_twice(builder, run) -> None:
    b = builder(("n", 4, 8, 8))
    first = b.conv("x", "a", (4, 4))
    normed = b.norm(first, "bn", 4)
    y = b.node("Conv", [normed, "a.weight", "a.bias"], "y", pads=[1, 1, 1, 1])
    after = same(run, b.model(y, 4), (2, 4, 8, 8))
    assert ops(after) == ["Conv", "Conv"]


def test_shared_weights_stay_shared_as_far_as_they_are_equal(builder, run) -> None:
    b = builder(("n", 4, 8, 8))
    b.conv("x", "a", (4, 4))
    b.norm("a_out", "bn", 4)
    b.const("scale", np.float32(2.0))
    layer, norm = b.nodes[0], b.nodes[1]
    value = b.node("Relu", [b.node("Mul", ["bn_out", "scale"], "scaled")], "act")
    # The same layer, norm and scale once more: one weight for both, folded twice.
    value = b.node("Conv", [value, *layer.input[1:]], "again", pads=[1, 1, 1, 1])
    value = b.node("BatchNormalization", [value, *norm.input[1:]], "normed")
    value = b.node("Mul", [value, "scale"], "y")
    graph = same(run, b.model(value, 4), (2, 4, 8, 8))
    assert ops(graph) == ["Conv", "Relu", "Conv"]
    assert list(graph.nodes[0].input[1:]) == list(graph.nodes[2].input[1:])


def test_a_weight_of_one_layer_keeps_its_name_and_type(builder) -> None:
    b = builder()
    b.node("Cast", ["x"], "wide", to=TensorProto.DOUBLE)
    b.const("c.weight", np.ones((4, 3, 1, 1)))
    conv = b.node("Conv", ["wide", "c.weight"], "conv")
    scaled = b.node("Mul", [conv, b.const("s", np.arange(4.0).reshape(4, 1, 1) + 1)], "scaled")
    graph = Graph.of(b.model(b.node("Cast", [scaled], "y", to=TensorProto.FLOAT), 4))
    tidy(graph)
    assert list(graph.nodes[1].input) == ["wide", "c.weight", "c.bias"]
    assert graph.constants["c.weight"].dtype == graph.constants["c.bias"].dtype == np.float64
    np.testing.assert_array_equal(graph.constants["c.weight"][:, 0, 0, 0], [1, 2, 3, 4])


@pytest.mark.parametrize("shape", [(4, 1), (1, 1, 1, 1), (1, 1, 4, 1)])
def test_constants_of_other_ranks_are_not_taken_for_channels(builder, run, shape) -> None:
    # Behind a one-dimensional convolution of width 4 only (4, 1) varies along the channels.
    b = builder(("n", 3, 4))
    weight = b.rng.normal(0, 0.3, (4, 3, 3)).astype(np.float32)
    conv = b.node("Conv", ["x", b.const("c.weight", weight)], "conv", pads=[1, 1])
    scale = b.const("s", b.rng.uniform(0.5, 2, shape).astype(np.float32))
    graph = same(run, b.model(b.node("Mul", [conv, scale], "y"), 3 + (len(shape) > 3)), (4, 3, 4))
    assert ops(graph) == (["Conv"] if shape == (4, 1) else ["Conv", "Mul"])


def test_one_scale_an_example_is_not_taken_for_channels(builder, run) -> None:
    b = builder((4, 3, 4))
    weight = b.rng.normal(0, 0.3, (4, 3, 3)).astype(np.float32)
    conv = b.node("Conv", ["x", b.const("c.weight", weight)], "conv", pads=[1, 1])
    scale = b.const("s", b.rng.uniform(0.5, 2, (4, 1, 1)).astype(np.float32))
    assert "Mul" in ops(same(run, b.model(b.node("Mul", [conv, scale], "y"), 3), (4, 3, 4)))


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_linear_layers_take_norms_from_both_sides(builder, run, side: str, transposed: int) -> None:
    b = builder(("n", 5))
    weight = b.rng.normal(0, 0.3, (3, 5) if transposed else (5, 3)).astype(np.float32)
    inputs = [b.const("c.weight", weight)]
    value = b.norm("x", "bn", 5) if side == "before" else "x"
    value = b.node("Gemm", [value, *inputs], "gemm", transB=transposed)
    value = value if side == "before" else b.norm(value, "bn", 3)
    assert ops(same(run, b.model(value), (2, 5))) == ["Gemm"]


# Padding and slices


def test_explicit_padding_goes_into_the_convolution(builder, run) -> None:
    b = builder()
    b.const("pads", np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64))
    padded = b.node("Pad", ["x", "pads"], "padded")
    y = b.conv(padded, "a", (3, 4), pads=[0, 0, 0, 0], strides=[2, 2])
    assert ops(same(run, b.model(y, 4))) == ["Conv"]


@pytest.mark.parametrize("case", ["channels", "nonzero", "reflect"])
def test_other_padding_stays(builder, run, case: str) -> None:
    b = builder()
    pads = [0, 1, 0, 0, 0, 0, 0, 0] if case == "channels" else [0, 0, 1, 1, 0, 0, 1, 1]
    inputs = ["x", b.const("pads", np.array(pads, np.int64))]
    if case == "nonzero":
        inputs.append(b.const("fill", np.array(1.0, np.float32)))
    mode = "reflect" if case == "reflect" else "constant"
    padded = b.node("Pad", inputs, "padded", mode=mode)
    y = b.conv(padded, "a", (4 if case == "channels" else 3, 4), pads=[0, 0, 0, 0])
    assert ops(same(run, b.model(y, 4))) == ["Pad", "Conv"]


def test_slices_of_different_axes_become_one(builder, run) -> None:
    b = builder()
    zero, end, two = (np.array([v], np.int64) for v in (0, 2**31, 2))
    for name, value in (("zero", zero), ("end", end), ("two", two)):
        b.const(name, value)
    b.const("h", np.array([2], np.int64))
    b.const("w", np.array([3], np.int64))
    rows = b.node("Slice", ["x", "zero", "end", "h", "two"], "rows")
    y = b.node("Slice", [rows, "zero", "end", "w", "two"], "y")
    assert ops(same(run, b.model(y, 4))) == ["Slice"]
