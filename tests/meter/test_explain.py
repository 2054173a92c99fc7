"""Why a file is not faster: what runs in int8, what stayed float, what would help."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from lilliput.errors import LilliputError, Refused
from lilliput.meter.advice import can_clip
from lilliput.meter.coverage import coverage
from lilliput.meter.explain import explain, explained
from lilliput.meter.memory import peak_rss_mb
from lilliput.meter.widths import WidthProfile
from lilliput.runtimes.base import NodeTime
from lilliput.target import Target


@pytest.fixture
def island(chain: Callable[..., Path], tmp_path: Path) -> Path:
    """A quantized chain whose third layer reads a float input: its pair of Q/DQ is bypassed."""
    model = onnx.load(str(chain(16, "conv3x3", "int8", weight_bits=7)))
    nodes = {node.name: node for node in model.graph.node if node.name}
    makers = {node.output[0]: node for node in model.graph.node}
    dequantize = makers[nodes["conv2"].input[0]]
    quantize = makers[dequantize.input[0]]
    nodes["conv2"].input[0] = quantize.input[0]
    model.graph.node.remove(dequantize)
    model.graph.node.remove(quantize)
    path = tmp_path / "island.onnx"
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "reference"])
def test_coverage_of_a_whole_int8_file(chain: Callable[..., Path], runtime: str) -> None:
    found = coverage(chain(16, "conv3x3", "int8", weight_bits=7), Target(runtime=runtime))
    assert sorted(found.quantized) == ["conv0", "conv1", "conv2", "conv3"]
    assert found.line == str(found) == "quantized 4 of 4 weighted layers"


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_coverage_names_the_layer_that_stayed_float(island: Path, runtime: str) -> None:
    # users-ask 4, 6
    found = coverage(island, Target(runtime=runtime))
    assert "conv2" in found.floats
    assert found.reasons["conv2"] == "its input is float"
    assert "conv2 (its input is float)" in found.line
    assert found.total == 4


def test_coverage_of_a_float_file_is_none(chain: Callable[..., Path]) -> None:
    found = coverage(chain(16, "depthwise"), Target())
    assert (found.quantized, len(found.floats), found.reasons) == ((), 4, {})
    assert found.floats == ("conv0", "conv1", "conv2", "conv3")
    assert found.line == "quantized 0 of 4 weighted layers"


def test_a_float_weight_is_the_reason(chain: Callable[..., Path], tmp_path: Path) -> None:
    model = onnx.load(str(chain(16, "conv3x3", "int8")))
    conv = next(node for node in model.graph.node if node.name == "conv1")
    makers = {node.output[0]: node for node in model.graph.node}
    integers = next(t for t in model.graph.initializer if t.name == makers[conv.input[1]].input[0])
    floats = onnx.numpy_helper.to_array(integers).astype("float32") / 1000
    model.graph.initializer.append(onnx.numpy_helper.from_array(floats, "floats"))
    conv.input[1] = "floats"
    path = tmp_path / "float_weight.onnx"
    onnx.save(model, str(path))
    assert coverage(path, Target()).reasons["conv1"] == "its weight is float"


def test_explain_names_the_float_island(island: Path) -> None:
    # users-ask 4: explain on a QDQ file whose Conv stayed float names that node
    found = explain(island, Target())
    assert "conv2" in found.float_islands
    assert any("conv2" in sentence and "in float" in sentence for sentence in found.advice)
    text = str(found)
    assert "island.onnx on onnxruntime, 1 thread" in text
    assert "float among int8: " in text
    assert "QLinearConv (int8)" in text


def test_shares_add_up(chain: Callable[..., Path]) -> None:
    found = explain(chain(32, "conv3x3", "int8", weight_bits=7), Target())
    assert sum(o.share for o in found.operators) == pytest.approx(1.0)
    assert 0.5 < found.int8_share < 1.0
    assert 0.0 < found.boundary_share < 0.5
    assert found.slowest[0].seconds >= found.slowest[-1].seconds
    assert {n.name for n in found.slowest} >= {"conv0", "conv1", "conv2", "conv3"}
    assert found.macs == 4 * 256 * 32 * 32 * 9


def test_openvino_explains_too(chain: Callable[..., Path]) -> None:
    found = explain(chain(16, "conv3x3", "int8", weight_bits=7), Target(runtime="openvino"))
    assert {n.name for n in found.slowest} >= {"conv0", "conv1", "conv2", "conv3"}
    assert found.int8_share > 0.3


def test_a_runtime_without_times_refuses(chain: Callable[..., Path]) -> None:
    with pytest.raises(Refused, match="the runtime reference reports no times per operator"):
        explain(chain(8, "conv1x1"), Target(runtime="reference"))


@pytest.mark.parametrize(
    ("width", "kind", "side", "bound"),
    [
        (64, "conv3x3", 16, "compute"),
        (256, "depthwise", 32, "memory"),
        (4, "conv1x1", 16, "overhead"),
    ],
)
def test_what_bounds_a_network(
    chain: Callable[..., Path], width: int, kind: str, side: int, bound: str
) -> None:
    assert explain(chain(width, kind, side=side), Target()).intensity == bound


def test_widths_off_the_grid_are_listed(chain: Callable[..., Path]) -> None:
    # users-ask 2
    table = {"conv3x3/fp32": {8: 1e-6, 15: 4e-6, 16: 2e-6, 17: 9e-6, 24: 5e-6, 32: 5e-6}}
    profile = WidthProfile(target=Target(), table=table)
    found = explain(chain(17, "conv3x3"), Target(), widths=profile)
    assert next((w.layer, w.width, w.better) for w in found.off_grid) == ("conv0", 17, 32)
    assert len(found.off_grid) == 4
    assert any("off this target's grid (conv0: 17 channels" in s for s in found.advice)
    assert "conv0 (conv3x3): 17 channels cost what 32 do" in str(found)
    assert explain(chain(16, "conv3x3"), Target(), widths=profile).off_grid == ()
    assert explain(chain(16, "conv1x1"), Target(), widths=profile).off_grid == ()


def test_the_width_of_a_grouped_layer_is_that_of_each_group(chain: Callable[..., Path]) -> None:
    # users-ask 2
    profile = WidthProfile(target=Target(), table={"grouped/fp32": {8: 1e-6, 12: 4e-6, 16: 2e-6}})
    found = explain(chain(12, "grouped"), Target(), widths=profile)
    assert {(w.kind, w.width, w.better) for w in found.off_grid} == {("grouped3x3", 48, 64)}
    assert explain(chain(16, "grouped"), Target(), widths=profile).off_grid == ()


def advice_on(path: Path, target: Target | None = None) -> str:
    return " ".join(explain(path, target or Target()).advice)


def test_advice_follows_the_facts(chain: Callable[..., Path]) -> None:
    # users-ask 3, 12
    assert "`quantize` usually halves" in advice_on(chain(64, "conv3x3"))
    old_cpu, new_cpu = Target(isa=("avx2",)), Target(isa=("avx512_vnni",))
    wide = chain(32, "conv3x3", "int8", weight_bits=8)
    assert "4 layers have 8-bit weights" in advice_on(wide, old_cpu)
    assert "8-bit weights" not in advice_on(wide, new_cpu)
    assert "8-bit weights" not in advice_on(chain(48, "conv3x3", "int8", weight_bits=7), old_cpu)
    depthwise = advice_on(chain(32, "depthwise", "int8", weight_bits=7))
    assert "4 depthwise layers run in int8" in depthwise
    assert "starting them costs as much as their work" in depthwise


def test_signed_activations_are_named(chain: Callable[..., Path], tmp_path: Path) -> None:
    model = onnx.load(str(chain(16, "conv3x3", "int8")))
    (zero,) = [t for t in model.graph.initializer if t.name == "zero"]
    zero.CopyFrom(helper.make_tensor("zero", onnx.TensorProto.INT8, [], [0]))
    path = tmp_path / "s8s8.onnx"
    onnx.save(model, str(path))
    assert "activations are signed 8-bit" in advice_on(path)


def test_boundary_cost_is_pointed_out(chain: Callable[..., Path]) -> None:
    nodes = [
        NodeTime(name="q", op="QuantizeLinear", seconds=3e-6),
        NodeTime(name="conv0", op="QLinearConv", seconds=7e-6, precision="int8"),
    ]
    path = chain(32, "conv3x3", "int8", weight_bits=7)
    found = explained(path, Target(), nodes, widths=None)
    assert found.boundary_share == pytest.approx(0.3)
    assert found.int8_share == pytest.approx(0.7)
    assert any(s.startswith("30% of the time goes into quantizing") for s in found.advice)


def test_a_memory_bound_float_file_is_told(chain: Callable[..., Path]) -> None:
    assert "few multiply-adds to a byte" in advice_on(chain(256, "depthwise", side=32))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_peak_memory_is_of_a_fresh_process(chain: Callable[..., Path], runtime: str) -> None:
    found = peak_rss_mb(chain(16, "conv3x3"), Target(runtime=runtime))
    assert found.unit == "MB"
    assert 20 < found.value < 1000
    assert 5 < found.conditions["added_mb"] < found.value
    assert found.conditions["runtime"] == runtime


def test_memory_needs_a_real_runtime(chain: Callable[..., Path]) -> None:
    with pytest.raises(LilliputError, match="cannot be measured in the runtime 'reference'"):
        peak_rss_mb(chain(16, "conv3x3"), Target(runtime="reference"))


def test_weights_clip_only_where_neighbours_are_large_together():
    one_large = np.zeros((1, 4, 1, 1), np.int32)
    one_large[0, 0] = 127
    both = one_large.copy()
    both[0, 1] = 2
    assert not can_clip(one_large)
    assert can_clip(both)
    opposite = one_large.copy()
    opposite[0, 1] = -127
    assert not can_clip(opposite)
    assert can_clip(np.full((4, 4), -70, np.int32))
    assert not can_clip(np.full((4, 4), 64, np.int32))
