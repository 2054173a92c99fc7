"""A quantity with its unit, its interval and its conditions; never a bare float."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from lilliput.noun import Noun

ALSO = "also "
"""What the quantity of a figure beside the metric begins with: "also SSIM on luminance"."""


class Measurement(Noun):
    """One figure about one file.

    `estimated` marks what was computed from the network and not taken from a file that ran
    (multiply-adds, proxy scores); such figures may steer a search but never rank deliverables.
    """

    quantity: str
    value: float
    unit: str
    interval: tuple[float, float] | None = None
    estimated: bool = False
    conditions: dict[str, Any] = Field(default_factory=dict)

    def differs_from(self, reference: float) -> bool:
        """Whether the interval excludes `reference`; without an interval nothing is claimed."""
        return self.interval is not None and not (self.interval[0] <= reference <= self.interval[1])

    def __str__(self) -> str:
        text = f"{self.value:.4g} {self.unit}".strip()
        if self.interval is not None:
            low, high = self.interval
            text += f" [{low:.4g}, {high:.4g}]"
        return text
