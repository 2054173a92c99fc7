"""What a convolution takes with m patterns in place of its kernels, measured once a shape.

The runtime's blocks of channels make that time a staircase in m, at other places on each machine.
A layer is timed between two others, since alone it would pay for conversions of its input and
output that it does not have in a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lilliput.context import Progress
from lilliput.meter.layer_nets import IR_VERSION, OPSET
from lilliput.meter.layer_times import identity, kept, loaded, quiet_seconds, users_cache
from lilliput.meter.stopwatch import Pace, collect
from lilliput.noun import Noun
from lilliput.target import Target

if TYPE_CHECKING:
    import onnx

SPATIAL = 0
"""The number of patterns that stands for the convolution as it is."""
MOST_COUNTS = 24
ROUNDS, SECONDS = 15, 3.0
RESOLUTION = 0.02


class Place(Noun):
    """A plain convolution and the maps that it is given: all that its time depends on.

    `pads` are rows above, columns left, rows below, columns right; `sides` the height and width of
    the maps.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: tuple[int, int]
    sides: tuple[int, int]

    def counts(self) -> list[int]:
        """Numbers of patterns that may be faster, 24 at most: those with fewer multiply-adds.

        m patterns take m (h w + O) products where the convolution takes h w O.
        """
        area = self.kernel[0] * self.kernel[1]
        most = max(1, min(area - 1, area * self.outputs // (area + self.outputs)))
        spread = np.linspace(1, most, min(most, MOST_COUNTS))
        return sorted({int(count) for count in spread.round()})


class PatternTimes(Noun):
    """Seconds of one layer and the little network around it, by the number of patterns.

    `seconds[SPATIAL]` is the time of the convolution as it is.
    """

    place: Place
    seconds: dict[int, float]

    def ratios(self) -> dict[int, float]:
        """{number of patterns: time relative to the convolution as it is}."""
        spatial = self.seconds[SPATIAL]
        return {m: s / spatial for m, s in sorted(self.seconds.items()) if m != SPATIAL}


def pattern_times(
    place: Place,
    target: Target,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> PatternTimes:
    """The layer's table on this target: measured in seconds the first time, then read.

    Args:
        place: The layer.
        target: Where files will run.
        cache_dir: Where tables are kept; the user's cache folder by default.
        progress: Watches the rounds.
    """
    counts = place.counts()

    def measured() -> PatternTimes:
        with loaded({str(m): framed(place, m) for m in (SPATIAL, *counts)}, target) as sessions:
            readings = collect(
                sessions,
                str(SPATIAL),
                Pace(min_rounds=ROUNDS, max_seconds=SECONDS, resolution=RESOLUTION),
                progress=progress,
            )
        seconds = {int(name): quiet_seconds(runs) for name, runs in readings.runs.items()}
        return PatternTimes(place=place, seconds=seconds)

    asked = {"machine": identity(target), "place": place.model_dump(mode="json"), "counts": counts}
    return kept(PatternTimes, asked, cache_dir or users_cache("patterns"), measured)


def framed(place: Place, count: int, *, seed: int = 0) -> onnx.ModelProto:
    """The layer after a 1×1 convolution and before pooling, as it is or with so many patterns.

    What is around it costs little and works on the runtime's own layout of channels.
    """
    from onnx import TensorProto, helper

    frame = _Frame(np.random.default_rng(seed))
    inputs, outputs = place.inputs, place.outputs
    layer = {
        "kernel_shape": place.kernel,
        "strides": place.stride,
        "pads": place.pads,
        "dilations": place.dilation,
    }
    value = frame.conv("input", (inputs, inputs, 1, 1), kernel_shape=(1, 1))
    value = frame.node("Relu", [value])
    if count == SPATIAL:
        value = frame.conv(value, (outputs, inputs, *place.kernel), **layer)
    else:
        channels = inputs * count
        value = frame.node("Concat", [value] * count, axis=1)
        value = frame.conv(value, (channels, 1, *place.kernel), group=channels, **layer)
        value = frame.conv(value, (outputs, channels, 1, 1), kernel_shape=(1, 1))
    value = frame.node("GlobalAveragePool", [frame.node("Relu", [value])])
    graph = helper.make_graph(
        frame.nodes,
        f"{count}_patterns",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, inputs, *place.sides])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, outputs, 1, 1])],
        frame.constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


class _Frame:
    """Nodes and constants of one little network as it grows."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def conv(self, value: str, shape: Sequence[int], **settings: object) -> str:
        """A convolution with He-scaled normal weights of this shape."""
        from onnx import numpy_helper

        weights = self._rng.standard_normal(shape) * (2.0 / np.prod(shape[1:])) ** 0.5
        name = f"weight{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(weights.astype(np.float32), name))
        return self.node("Conv", [value, name], **settings)

    def node(self, op: str, inputs: Sequence[str], **settings: object) -> str:
        from onnx import helper

        output = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **settings))
        return output
