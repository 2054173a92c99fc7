"""A graph taken apart and put together again: nothing is lost, nothing of the user's is changed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lilliput.errors import LilliputError
from lilliput.graph import Graph
from lilliput.graph.tidy import tidy


def test_the_users_model_is_never_changed(residual_net: onnx.ModelProto) -> None:
    before = residual_net.SerializeToString()
    graph = Graph.of(residual_net)
    tidy(graph)
    graph.constants["head.bias"] = np.zeros(4, np.float32)
    graph.prune()
    assert residual_net.SerializeToString() == before


def test_scalars_stay_scalars(residual_net: onnx.ModelProto) -> None:
    # A scale of shape (1,) in place of () keeps runtimes from fusing additions.
    graph = Graph.of(residual_net)
    graph.constants["s"] = np.array(2.0, np.float32)
    graph.nodes[-1].input[2] = "s"
    stored = {t.name: t for t in graph.model().graph.initializer}
    assert list(stored["s"].dims) == []


def test_fresh_names_collide_with_nothing(residual_net: onnx.ModelProto) -> None:
    graph = Graph.of(residual_net)
    assert graph.fresh("x") == "x_"
    assert graph.fresh("head.bias") == "head.bias_"
    assert graph.fresh("new") == "new"


def test_branches_pin_what_they_read(builder) -> None:
    b = builder()
    branch = helper.make_graph(
        [helper.make_node("Identity", ["stem_out"], ["inner"])],
        "branch",
        [],
        [helper.make_empty_tensor_value_info("inner")],
    )
    stem = b.conv("x", "stem", (3, 4))
    b.const("yes", np.array(True))
    b.nodes.append(helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch))
    b.node("Relu", [stem], "z")
    graph = Graph.of(b.model("y", 4))
    assert "stem_out" in graph.pinned
    assert graph.sole_reader("stem_out") is None


def test_a_missing_initializer_is_named(residual_net: onnx.ModelProto) -> None:
    with pytest.raises(LilliputError, match="no constant 'nothing'"):
        Graph.of(residual_net).weights("nothing")


def test_a_copy_is_apart(residual_net: onnx.ModelProto) -> None:
    graph = Graph.of(residual_net)
    before = graph.model().SerializeToString()
    other = graph.copy()
    tidy(other)
    other.rename({"x": "y"})
    assert graph.model().SerializeToString() == before
    assert other.input_names == ("y",)


def test_what_the_lists_do_not_hold_is_kept(residual_net: onnx.ModelProto) -> None:
    residual_net.metadata_props.add(key="made by", value="a user")
    residual_net.opset_import.append(helper.make_opsetid("other", 3))
    again = Graph.of(residual_net).model()
    assert again.metadata_props == residual_net.metadata_props
    assert again.opset_import == residual_net.opset_import
    assert again.graph.name == "tiny"


def test_every_node_has_a_name_of_its_own(builder) -> None:
    b = builder()
    for output in ("a", "b"):
        b.node("Relu", ["x"], output, name="same")
    b.nodes.append(helper.make_node("Add", ["a", "b"], ["y"]))
    assert [node.name for node in Graph.of(b.model("y", 4)).nodes] == ["same", "same_", "y"]


def test_constant_nodes_are_constants_unless_a_caller_asks_for_them(builder) -> None:
    b = builder()
    for name, value in (("asked", [1.0]), ("inner", [2.0])):
        b.nodes.append(helper.make_node("Constant", [], [name], value_floats=value))
    b.node("Mul", ["x", "inner"], "y")
    model = b.model("y", 4)
    model.graph.output.append(helper.make_tensor_value_info("asked", TensorProto.FLOAT, [1]))
    graph = Graph.of(model)
    tidy(graph)
    assert [node.op_type for node in graph.nodes] == ["Constant", "Mul"]
    np.testing.assert_array_equal(graph.constants["inner"], np.float32([2.0]))


def test_the_constants_of_old_files_are_no_inputs(residual_net: onnx.ModelProto, run) -> None:
    x = np.ones((1, 3, 8, 8), np.float32)
    expected = run(residual_net, x)
    for tensor in residual_net.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        residual_net.graph.input.append(value)
    residual_net.ir_version = 3
    again = Graph.of(residual_net).model()
    onnx.checker.check_model(again)
    assert [value.name for value in again.graph.input] == ["x"]
    np.testing.assert_array_equal(run(again, x), expected)


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.INT4, TensorProto.FLOAT8E4M3FN])
def test_types_that_numpy_has_not_are_stored_as_they_were(builder, kind: int) -> None:
    b = builder()
    b.tensors.append(helper.make_tensor("odd", kind, [2], [1, 2]))
    b.node("Cast", ["odd"], "cast", to=TensorProto.FLOAT)
    b.node("Relu", ["cast"], "y")
    stored = Graph.of(b.model("y", 1)).model().graph.initializer[0]
    assert (stored.name, stored.data_type, list(stored.dims)) == ("odd", kind, [2])
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored).astype(np.float32), [1, 2])


def test_renaming_reaches_into_branches(builder, run) -> None:
    b = builder()
    for name in ("then", "else"):
        b.const(name, np.float32(2.0))
    branch = helper.make_graph(
        [helper.make_node("Mul", ["again", "then"], ["doubled"])],
        "branch",
        [],
        [helper.make_tensor_value_info("doubled", TensorProto.FLOAT, None)],
    )
    b.node("Identity", [b.conv("x", "a", (3, 4))], "again")
    b.const("yes", np.array(True))
    b.nodes.append(helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch))
    model = b.model("y", 4)
    graph = Graph.of(model)
    assert graph.nested
    tidy(graph)
    assert [node.op_type for node in graph.nodes] == ["Conv", "If"]
    x = np.ones((1, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(run(graph.model(), x), run(model, x))
