"""What the int8 ladder is told and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lilliput.encode.layers import Layer
from lilliput.encode.placement import Placement
from lilliput.encode.qdq import Encoding, write_qdq
from lilliput.encode.ranges import Histogram
from lilliput.encode.rounding import Grid
from lilliput.graph import Graph
from lilliput.preprocessing import Preprocessing

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Settings:
    """What the ladder may do. `saturating` is the target's: neighbours then share 16 bits.

    `rate` is the bits a weight may take when packed; None leaves that out of account.
    """

    weight_bits: int = 8
    saturating: bool = True
    ranges: Literal["auto", "minmax", "percentile", "entropy", "mse"] = "auto"
    equalize: bool = True
    bias_correction: bool = True
    rounding: Literal["nearest", "optimized", "auto"] = "auto"
    depthwise: Literal["auto", "int8", "float"] = "auto"
    rate: float | Literal["auto", "size"] | None = None
    exclude: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    threads: int = 1
    sensitivity_batches: int = 2

    def grid(self, layer: Layer) -> Grid:
        """The integers that the layer's weights may take on the target."""
        return Grid.of(self.weight_bits, paired=self.saturating and not layer.depthwise)


@dataclass(frozen=True)
class State:
    """One int8 model in the making."""

    graph: Graph
    placement: Placement
    encoding: Encoding
    histograms: Mapping[str, Histogram]
    pixels: str = ""

    def model(self) -> onnx.ModelProto:
        return write_qdq(self.graph, self.placement, self.encoding)


@dataclass(frozen=True)
class Rung:
    """What was tried, the relative output error and (if it was scored) the drop after it."""

    name: str
    error: float
    kept: bool
    seconds: float
    drop: float | None = None
    note: str = ""

    def __str__(self) -> str:
        text = f"{self.name}: output error {100 * self.error:.2f} %"
        if self.drop is not None:
            text += f", drop {self.drop:.3g}"
        verdict = "" if self.kept else " (not kept)"
        return text + verdict + (f" — {self.note}" if self.note else "")


@dataclass(frozen=True)
class Outcome:
    """The best int8 model found, how it was reached and whether it keeps the allowed drop.

    `sensitivity` is {layer: relative output error of it alone in int8}, where that was measured;
    `bits` a weight, where they were chosen by rate.
    """

    model: onnx.ModelProto
    state: State
    rungs: tuple[Rung, ...]
    notes: tuple[str, ...]
    error: float
    drop: float | None
    met: bool
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    bits: float | None = None

    @property
    def coverage(self) -> str:
        return self.state.placement.coverage
