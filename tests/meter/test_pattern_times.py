"""Tables of layers with m patterns: the little networks are right, and they are timed once."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.export.onnx_file import export_network
from lilliput.frequency.running import FrequencyConv2d, pads_of
from lilliput.meter import pattern_times as measured
from lilliput.meter.pattern_times import SPATIAL, PatternTimes, Place, framed, pattern_times
from lilliput.network import Network
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.null import NullRuntime, constant
from lilliput.target import Target


def place(inputs=8, outputs=16, side=5, maps=8, **changed) -> Place:
    fields = {
        "inputs": inputs,
        "outputs": outputs,
        "kernel": (side, side),
        "stride": (1, 1),
        "pads": (side // 2,) * 4,
        "dilation": (1, 1),
        "sides": (maps, maps),
    }
    return Place(**(fields | changed))


@pytest.mark.parametrize("count", [SPATIAL, 1, 3])
def test_what_is_timed_is_what_is_exported(tmp_path: Path, count: int) -> None:
    layer = nn.Conv2d(8, 16, 5, padding=2, bias=False)
    form = FrequencyConv2d(layer, count) if count else layer
    module = nn.Sequential(
        nn.Conv2d(8, 8, 1, bias=False), nn.ReLU(), form, nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    network = Network(module.eval(), (TensorSpec(name="x", shape=(1, 8, 8, 8)),))
    exported = onnx.load(export_network(network, tmp_path / "n.onnx").path)
    assert nodes(framed(place(), count)) == nodes(exported)


def nodes(model: onnx.ModelProto) -> list[tuple[str, int, list[int]]]:
    """Operators with their group and the shape of their weights."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return [
        (
            node.op_type,
            next((a.i for a in node.attribute if a.name == "group"), 1),
            next((shapes[name] for name in node.input if name in shapes), []),
        )
        for node in model.graph.node
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"padding": 2},
        {"padding": (0, 1), "stride": (2, 1)},
        {"padding": "same", "dilation": (3, 1)},
        {"padding": "valid"},
        {"kernel_size": (4, 5), "padding": "same"},
    ],
    ids=str,
)
def test_the_maps_are_as_large_as_the_layers(settings) -> None:
    layer = nn.Conv2d(8, 16, **({"kernel_size": (5, 5)} | settings))
    asked = place(
        kernel=layer.kernel_size,
        stride=layer.stride,
        dilation=layer.dilation,
        pads=pads_of(layer),
        sides=(20, 22),
    )
    for count in (SPATIAL, 2):
        model = onnx.shape_inference.infer_shapes(framed(asked, count))
        (pooled,) = (
            node.input[0] for node in model.graph.node if node.op_type == "GlobalAveragePool"
        )
        (found,) = (value for value in model.graph.value_info if value.name == pooled)
        sides = [dim.dim_value for dim in found.type.tensor_type.shape.dim]
        assert sides == list(layer(torch.zeros(1, 8, 20, 22)).shape)


def test_counts_are_those_that_save_products() -> None:
    assert place(outputs=64).counts() == list(range(1, 18))  # 25 · 64 / 89
    assert place(outputs=1).counts() == [1]
    many = place(outputs=256, side=11).counts()
    assert len(many) == 24
    assert (many[0], many[-1]) == (1, 82)


class Counting(NullRuntime):
    """Takes 10 µs a pattern and 50 µs without, and counts its loads."""

    loads = 0

    def load(self, path: Path, target: Target):  # type: ignore[no-untyped-def]
        type(self).loads += 1
        self.script[path.stem] = constant(10_000 * (int(path.stem) or 5))
        return super().load(path, target)


def test_a_shape_is_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES._things, "null", Counting())
    monkeypatch.setattr(measured, "SECONDS", 0.0)
    target = Target(runtime="null")
    table = pattern_times(place(outputs=4), target, cache_dir=tmp_path)
    assert Counting.loads == 1 + 3
    assert table.ratios() == pytest.approx({1: 0.2, 2: 0.4, 3: 0.6})
    assert pattern_times(place(outputs=4), target, cache_dir=tmp_path) == table
    assert Counting.loads == 4
    pattern_times(place(outputs=4, maps=16), target, cache_dir=tmp_path)
    assert Counting.loads == 8, "another size of maps is another time"
    assert PatternTimes.model_validate_json(table.model_dump_json()) == table


def test_few_patterns_are_faster_than_the_layer_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "SECONDS", 0.5)
    ratios = pattern_times(place(16, 8, maps=16), Target(), cache_dir=tmp_path).ratios()
    assert list(ratios) == [1, 2, 3, 4, 5, 6]
    assert ratios[1] < 1
    assert ratios[1] < ratios[6]
