"""Preparing for int8 changes the graph and never what it computes."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import helper

from lilliput.encode.prepare import prepare, upgrade_opset
from lilliput.errors import Refused
from lilliput.graph import Graph


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


def test_two_linear_convolutions_become_one_where_that_is_less_work(builder, run) -> None:
    b = builder()
    y = b.conv(b.conv("x", "a", (3, 6)), "b", (6, 3), kernel=1)
    assert ops(same(run, b.model(y, 4))) == ["Conv"]
    b = builder()
    y = b.conv(b.conv("x", "a", (3, 2)), "b", (2, 6), kernel=1)
    assert ops(same(run, b.model(y, 4))) == ["Conv", "Conv"]


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


def test_names_and_free_sizes_survive(residual_net) -> None:
    after = prepare(residual_net).model
    assert [v.name for v in after.graph.input] == ["x"]
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert not after.graph.value_info


def test_a_norm_that_evens_out_a_float_activation_stays(builder, run) -> None:
    # Its channels are uneven, and nothing can be equalized through it.
    b = builder()
    act = b.node("HardSwish", [b.conv("x", "a", (3, 4))], "act")
    y = b.conv(b.norm(act, "bn", 4), "b", (4, 6), kernel=1)
    assert "BatchNormalization" in ops(same(run, b.model(y, 4)))


def test_an_old_opset_is_lifted_and_said(residual_net: onnx.ModelProto) -> None:
    # users-ask 23: at opset 11 other tools drop per-channel scales silently.
    del residual_net.opset_import[:]
    residual_net.opset_import.append(helper.make_opsetid("", 11))
    prepared = prepare(residual_net)
    assert Graph.of(prepared.model).opset == 13
    assert prepared.notes[0] == "opset 11 lifted to 13: int8 per channel needs it"
    assert Graph.of(residual_net).opset == 11


def test_an_opset_that_cannot_be_lifted_is_refused(builder) -> None:
    b = builder(opset=11)
    b.nodes.append(helper.make_node("Unheard", ["x"], ["y"]))
    with pytest.raises(Refused, match="opset 11, per-channel int8 needs 13"):
        upgrade_opset(b.model("y", 4))
