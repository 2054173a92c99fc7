"""Multiply-adds, weights and widths, counted by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lilliput.artifact import METADATA_KEY, ArtifactMetadata, TensorSpec
from lilliput.errors import LilliputError
from lilliput.meter.cost import file_cost, layer_kind


def save(path: Path, nodes: list, constants: dict, shape: list, output: str = "y") -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_a_small_network_counted_by_hand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], name="stem", pads=[1] * 4),
        helper.make_node("Conv", ["a", "w1"], ["b"], name="dw", pads=[1] * 4, group=8),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="mix", group=2),
        helper.make_node("ConvTranspose", ["c", "w3"], ["d"], name="up", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["g"], name="head", transB=1),
        helper.make_node("MatMul", ["g", "w5"], ["y"], name="last"),
    ]
    constants = {
        "w0": weights(8, 3, 3, 3),
        "b0": weights(8),
        "w1": weights(8, 1, 3, 3),
        "w2": weights(4, 4, 1, 1),
        "w3": weights(4, 6, 2, 2),
        "w4": weights(10, 6),
        "b4": weights(10),
        "w5": weights(10, 2),
    }
    cost = file_cost(save(tmp_path / "net.onnx", nodes, constants, ["n", 3, 6, 6]))
    macs = {layer.name: layer.macs for layer in cost.layers}
    assert macs == {
        "stem": 36 * 8 * 27,
        "dw": 36 * 8 * 9,
        "mix": 36 * 4 * 4,
        "up": 36 * 4 * 6 * 4,
        "head": 60,
        "last": 20,
    }
    assert cost.macs == sum(macs.values())
    assert cost.params == sum(value.size for value in constants.values())
    assert cost.widths == {"stem": 8, "dw": 8, "mix": 4, "up": 6, "head": 10, "last": 2}
    assert [layer.kind for layer in cost.layers] == [
        "conv3x3",
        "depthwise3x3",
        "grouped1x1",
        "transposed2x2",
        "linear",
        "linear",
    ]
    assert cost.bytes == (tmp_path / "net.onnx").stat().st_size
    stem = cost.layers[0]
    assert (stem.inputs, stem.outputs, stem.params) == (3, 8, 216)
    assert stem.bytes_moved == 4 * (3 * 36 + 216 + 8 * 36)


def test_figures_are_marked_as_estimates(chain: Callable[..., Path]) -> None:
    # users-ask 5
    figures = {m.quantity: m for m in file_cost(chain(8, "conv1x1")).measurements()}
    assert figures["macs"].estimated
    assert figures["params"].estimated
    assert not figures["bytes"].estimated
    assert figures["macs"].unit == "MACs"


@pytest.mark.parametrize("kind", ["conv3x3", "depthwise", "conv1x1"])
def test_quantized_and_float_files_cost_alike(chain: Callable[..., Path], kind: str) -> None:
    floats, integers = file_cost(chain(12, kind)), file_cost(chain(12, kind, "int8"))
    assert integers.macs == floats.macs
    assert integers.params == floats.params
    assert integers.widths == floats.widths
    assert {layer.precision for layer in integers.layers} == {"int8"}
    assert {layer.precision for layer in floats.layers} == {"fp32"}
    assert integers.layers[0].bytes_moved == floats.layers[0].bytes_moved / 4


def test_integer_operators_cost_alike(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node(
            "QLinearConv", ["q", "s", "z", "w", "s", "z8", "s", "z", "b"], ["r"], name="conv"
        ),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    constants = {
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.uint8),
        "z8": np.array(0, np.int8),
        "w": np.ones((2, 3, 1, 1), np.int8),
        "b": np.zeros(2, np.int32),
    }
    cost = file_cost(save(tmp_path / "q.onnx", nodes, constants, [1, 3, 5, 5]))
    assert (cost.macs, cost.params) == (150.0, 8)


def test_macs_are_of_one_example(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    constants = {"w": np.ones((2, 3, 1, 1), np.float32)}
    one = file_cost(save(tmp_path / "one.onnx", nodes, constants, ["n", 3, 5, 5]))
    eight = file_cost(save(tmp_path / "eight.onnx", nodes, constants, [8, 3, 5, 5]))
    assert one.macs == eight.macs == 150.0
    assert eight.layers[0].macs == 1200.0


def test_free_sizes_are_read_from_the_file(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    constants = {"w": np.ones((2, 3, 1, 1), np.float32)}
    path = save(tmp_path / "free.onnx", nodes, constants, ["n", 3, "h", "w"])
    assert file_cost(path).macs == 6.0
    model = onnx.load(str(path))
    spec = TensorSpec(name="x", shape=(None, 3, None, None), sample=(1, 3, 20, 10))
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, ArtifactMetadata(inputs=(spec,)).model_dump_json()
    onnx.save(model, str(path))
    assert file_cost(path).macs == 1200.0


def test_a_product_of_activations_has_no_weights(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "t"], ["y"], name="attention"),
    ]
    cost = file_cost(save(tmp_path / "attention.onnx", nodes, {}, ["n", 4, 6]))
    assert cost.layers[0].macs == 4 * 4 * 6
    assert (cost.layers[0].params, cost.params) == (0, 0)


def test_what_cannot_be_counted_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="odd"),
    ]
    path = save(tmp_path / "odd.onnx", nodes, {"w": np.ones((3, 2), np.float32)}, [2, 3])
    with pytest.raises(LilliputError, match="the shapes around MatMul 'odd' are unknown"):
        file_cost(path)
    with pytest.raises(LilliputError, match=r"the cost of 'net.pt2' is unknown"):
        file_cost(tmp_path / "net.pt2")


def test_kinds_have_the_fields_names() -> None:
    assert layer_kind(op="Conv", kernel=(5, 5), groups=1, inputs=3) == "conv5x5"
    assert layer_kind(op="Conv", kernel=(3,), groups=4, inputs=8) == "grouped3"
    assert layer_kind(op="MatMul", kernel=(), groups=1, inputs=3) == "linear"
