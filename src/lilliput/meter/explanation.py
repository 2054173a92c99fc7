"""Where a file's time goes, as figures and as text."""

from __future__ import annotations

from lilliput.meter.coverage import Coverage
from lilliput.noun import Noun
from lilliput.runtimes.base import NodeTime


class OperatorShare(Noun):
    """All operators of one type and precision: their number and their share of the time."""

    op: str
    precision: str
    count: int
    seconds: float
    share: float


class OffGrid(Noun):
    """A layer whose width costs more than a wider one, or as much."""

    layer: str
    kind: str
    width: int
    better: int


class Explanation(Noun):
    """Where a file's time goes on a target. Shares are of the profiled time, 0 to 1.

    `intensity` is "overhead" (too little work to an operator), "memory" (few multiply-adds to a
    byte) or "compute". `boundary_share` is what quantizing, dequantizing and layout changes take.
    """

    file: str
    target: str
    seconds: float
    operators: tuple[OperatorShare, ...]
    slowest: tuple[NodeTime, ...]
    int8_share: float
    boundary_share: float
    coverage: Coverage
    float_islands: tuple[str, ...]
    off_grid: tuple[OffGrid, ...]
    macs: float
    macs_per_byte: float
    intensity: str
    advice: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.file} on {self.target}: {self.seconds * 1e3:.3g} ms in operators",
            f"  int8: {self.int8_share:.0%} of the time; {self.coverage.line}",
            f"  quantize, dequantize, layout changes: {self.boundary_share:.0%}",
            f"  {self.macs / 1e6:.3g} M multiply-adds ({self.macs_per_byte:.3g} a byte moved)",
            f"  bound by {self.intensity}",
            "  time by operator:",
        ]
        lines += [
            f"    {o.share:6.1%}  {o.op} ({o.precision}) ×{o.count}" for o in self.operators[:8]
        ]
        lines.append("  slowest:")
        lines += [
            f"    {n.seconds * 1e6:8.1f} µs  {n.name} ({n.op}, {n.precision})"
            for n in self.slowest[:5]
        ]
        if self.float_islands:
            lines.append("  float among int8: " + ", ".join(self.float_islands))
        lines += [
            f"  {w.layer} ({w.kind}): {w.width} channels cost what {w.better} do"
            for w in self.off_grid[:8]
        ]
        lines += [f"  → {sentence}" for sentence in self.advice]
        return "\n".join(lines)
