"""Names, patterns, opsets and edits of the graph that the int8 engine works on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from lilliput.encode.fold import prepare
from lilliput.encode.graph import Graph, match_layers, module_path, upgrade_opset
from lilliput.errors import LilliputError, Mistakes, Refused


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/net/net.1/stage/stage.0/residual/Conv", "net.1.stage.0.residual"),
        ("/conv1/Conv", "conv1"),
        ("/Gemm", "/Gemm"),
        ("node_conv2d", "node_conv2d"),
    ],
)
def test_module_paths_of_the_legacy_exporter(name: str, path: str) -> None:
    assert module_path(name) == path


def test_layers_carry_their_module_paths(residual_net: onnx.ModelProto) -> None:
    layers = Graph(residual_net).layers()
    assert [layer.path for layer in layers] == ["stem", "block.conv1", "block.conv2", "head"]
    assert [layer.axis for layer in layers] == [0, 0, 0, 0]
    assert not any(layer.depthwise for layer in layers)


def test_a_weights_name_is_the_path_where_the_node_has_none(builder) -> None:
    b = builder()
    b.const("encoder.conv.weight", np.ones((4, 3, 1, 1), np.float32))
    b.nodes.append(helper.make_node("Conv", ["x", "encoder.conv.weight"], ["y"]))
    assert Graph(b.model("y", 4)).layers()[0].path == "encoder.conv"


def test_patterns_match_paths_nodes_and_weights(residual_net: onnx.ModelProto) -> None:
    layers = Graph(residual_net).layers()
    assert match_layers(layers, ["block.*"]) == {"/block/conv1/Conv", "/block/conv2/Conv"}
    assert match_layers(layers, ["head.weight"]) == {"/head/Gemm"}
    assert match_layers(layers, ["/stem/Conv"]) == {"/stem/Conv"}
    assert match_layers(layers, []) == frozenset()


def test_an_unmatched_pattern_names_the_nearest_layers(residual_net: onnx.ModelProto) -> None:
    # users-ask 25
    layers = Graph(residual_net).layers()
    with pytest.raises(LilliputError, match=r"exclude pattern 'blok.conv1' matches no layer") as e:
        match_layers(layers, ["blok.conv1"])
    assert "'block.conv1'" in str(e.value)


def test_all_unmatched_patterns_are_told_at_once(residual_net: onnx.ModelProto) -> None:
    with pytest.raises(Mistakes, match=r"2 mistakes(.|\n)*'a\*'(.|\n)*'b\?'"):
        match_layers(Graph(residual_net).layers(), ["a*", "b?"])


def test_an_old_opset_is_lifted_and_said(residual_net: onnx.ModelProto) -> None:
    # users-ask 23: at opset 11 other tools drop per-channel scales silently.
    del residual_net.opset_import[:]
    residual_net.opset_import.append(helper.make_opsetid("", 11))
    prepared = prepare(residual_net)
    assert Graph(prepared.model).opset == 13
    assert prepared.notes[0] == "opset 11 lifted to 13: int8 per channel needs it"
    assert Graph(residual_net).opset == 11


def test_an_opset_that_cannot_be_lifted_is_refused(builder) -> None:
    b = builder(opset=11)
    b.nodes.append(helper.make_node("Unheard", ["x"], ["y"]))
    with pytest.raises(Refused, match="opset 11, per-channel int8 needs 13"):
        upgrade_opset(b.model("y", 4))


def test_the_users_model_is_never_changed(residual_net: onnx.ModelProto) -> None:
    before = residual_net.SerializeToString()
    prepare(residual_net)
    graph = Graph(residual_net)
    graph.set_constant("head.bias", np.zeros(4, np.float32))
    graph.prune()
    assert residual_net.SerializeToString() == before


def test_scalars_stay_scalars(residual_net: onnx.ModelProto) -> None:
    # A scale of shape (1,) in place of () keeps runtimes from fusing additions.
    graph = Graph(residual_net)
    graph.set_constant("s", np.array(2.0, np.float32))
    assert list(graph.initializers["s"].dims) == []


def test_fresh_names_collide_with_nothing(residual_net: onnx.ModelProto) -> None:
    graph = Graph(residual_net)
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
    graph = Graph(b.model("y", 4))
    assert "stem_out" in graph.pinned
    assert graph.sole_consumer("stem_out") is None


def test_a_missing_initializer_is_named(residual_net: onnx.ModelProto) -> None:
    with pytest.raises(LilliputError, match="no initializer 'nothing'"):
        Graph(residual_net).weights("nothing")
