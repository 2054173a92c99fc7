"""Names of weighted layers, and the patterns that choose among them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from lilliput.encode.layers import layers_of, match_layers, module_path
from lilliput.errors import LilliputError, Mistakes
from lilliput.graph import Graph


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
    layers = layers_of(Graph.of(residual_net))
    assert [layer.path for layer in layers] == ["stem", "block.conv1", "block.conv2", "head"]
    assert [layer.axis for layer in layers] == [0, 0, 0, 0]
    assert not any(layer.depthwise for layer in layers)


def test_a_weights_name_is_the_path_where_the_node_has_none(builder) -> None:
    b = builder()
    b.const("encoder.conv.weight", np.ones((4, 3, 1, 1), np.float32))
    b.nodes.append(helper.make_node("Conv", ["x", "encoder.conv.weight"], ["y"]))
    assert layers_of(Graph.of(b.model("y", 4)))[0].path == "encoder.conv"


def test_patterns_match_paths_nodes_and_weights(residual_net: onnx.ModelProto) -> None:
    layers = layers_of(Graph.of(residual_net))
    assert match_layers(layers, ["block.*"]) == {"/block/conv1/Conv", "/block/conv2/Conv"}
    assert match_layers(layers, ["head.weight"]) == {"/head/Gemm"}
    assert match_layers(layers, ["/stem/Conv"]) == {"/stem/Conv"}
    assert match_layers(layers, []) == frozenset()


def test_an_unmatched_pattern_names_the_nearest_layers(residual_net: onnx.ModelProto) -> None:
    # users-ask 25
    layers = layers_of(Graph.of(residual_net))
    with pytest.raises(LilliputError, match=r"exclude pattern 'blok.conv1' matches no layer") as e:
        match_layers(layers, ["blok.conv1"])
    assert "'block.conv1'" in str(e.value)


def test_all_unmatched_patterns_are_told_at_once(residual_net: onnx.ModelProto) -> None:
    with pytest.raises(Mistakes, match=r"2 mistakes(.|\n)*'a\*'(.|\n)*'b\?'"):
        match_layers(layers_of(Graph.of(residual_net)), ["a*", "b?"])
