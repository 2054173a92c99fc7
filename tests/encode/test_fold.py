"""Folding changes the graph and never what it computes."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lilliput.encode.fold import MAX_FOLDED_BYTES, prepare


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def same(run, before: onnx.ModelProto, shape=(2, 3, 8, 8)) -> onnx.ModelProto:
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    after = prepare(before).model
    onnx.checker.check_model(after, full_check=True)
    expected = run(before, x)
    np.testing.assert_allclose(run(after, x), expected, rtol=1e-4, atol=1e-5)
    return after


def test_batch_norm_goes_into_the_convolution(residual_net, run) -> None:
    after = same(run, residual_net)
    assert "BatchNormalization" not in ops(after)
    assert "1 batch norms" in prepare(residual_net).notes[0]


def test_batch_norm_behind_an_activation_goes_forward_if_nothing_is_padded(builder, run) -> None:
    b = builder()
    act = b.node("Relu", [b.conv("x", "a", (3, 4))], "act")
    y = b.conv(b.norm(act, "bn", 4), "b", (4, 6), kernel=1, groups=2)
    assert ops(same(run, b.model(y, 4))) == ["Conv", "Relu", "Conv"]


def test_batch_norm_before_padding_stays(builder, run) -> None:
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


def test_two_linear_convolutions_become_one_where_that_is_less_work(builder, run) -> None:
    b = builder()
    y = b.conv(b.conv("x", "a", (3, 6)), "b", (6, 3), kernel=1)
    assert ops(same(run, b.model(y, 4))) == ["Conv"]
    b = builder()
    y = b.conv(b.conv("x", "a", (3, 2)), "b", (2, 6), kernel=1)
    assert ops(same(run, b.model(y, 4))) == ["Conv", "Conv"]


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


@pytest.mark.parametrize("keep", [0, 1])
def test_a_mean_over_the_picture_becomes_a_pool(builder, run, keep: int) -> None:
    b = builder()
    conv = b.conv("x", "a", (3, 4))
    y = b.node("ReduceMean", [conv], "y", axes=[2, 3], keepdims=keep)
    after = same(run, b.model(y, 4 if keep else 2))
    assert ops(after) == ["Conv", "GlobalAveragePool", *([] if keep else ["Flatten"])]


def test_the_five_nodes_of_a_gelu_become_one(builder, run) -> None:
    b = builder()
    x = b.conv("x", "a", (3, 4))
    for name, value in (("root", math.sqrt(2.0)), ("one", 1.0), ("half", 0.5)):
        b.const(name, np.array(value, np.float32))
    erf = b.node("Erf", [b.node("Div", [x, "root"], "d")], "e")
    gated = b.node("Mul", [x, b.node("Add", [erf, "one"], "p")], "m")
    y = b.node("Mul", [gated, "half"], "y")
    prepared = prepare(b.model(y, 4))
    assert ops(prepared.model) == ["Conv", "Gelu"]
    assert "one operator instead of five" in prepared.notes[0]
    same(run, b.model(y, 4))


def test_what_only_looks_like_a_gelu_is_left(builder, run) -> None:
    b = builder()
    x = b.conv("x", "a", (3, 4))
    for name, value in (("root", math.sqrt(2.0)), ("one", 1.0), ("half", 0.4)):
        b.const(name, np.array(value, np.float32))
    erf = b.node("Erf", [b.node("Div", [x, "root"], "d")], "e")
    gated = b.node("Mul", [x, b.node("Add", [erf, "one"], "p")], "m")
    y = b.node("Mul", [gated, "half"], "y")
    assert "Erf" in ops(same(run, b.model(y, 4)))


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
    assert after.graph.output[0].name == "y"


def test_a_huge_constant_is_not_computed(builder) -> None:
    # A file of a hundred bytes could ask for terabytes.
    b = builder()
    b.const("size", np.array([MAX_FOLDED_BYTES, MAX_FOLDED_BYTES], np.int64))
    zeros = b.node("ConstantOfShape", ["size"], "zeros")
    b.node("Shape", [zeros], "much")
    y = b.node("Mul", [b.conv("x", "a", (3, 4)), b.node("Cast", ["much"], "f", to=1)], "y")
    assert "ConstantOfShape" in ops(prepare(b.model(y, 4)).model)


def test_names_and_free_sizes_survive(residual_net) -> None:
    after = prepare(residual_net).model
    assert [v.name for v in after.graph.input] == ["x"]
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert not after.graph.value_info
