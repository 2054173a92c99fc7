"""A network or a file on its way to the front: its settings, its parent, its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lilliput.errors import LilliputError
from lilliput.measurement import Measurement

if TYPE_CHECKING:
    from lilliput.artifact import Artifact
    from lilliput.network import Network


@dataclass(frozen=True)
class Candidate:
    """One point of a run. Exactly one of `network` and `artifact` is set.

    `settings` is what the producing stage was told; `history` all of them from the original on;
    `measurements` maps a quantity ("metric", "drop", "latency", "ratio", "bytes", "macs",
    "params", ...) to its figure; `labels` are sentences such as "no gain over its parent".
    """

    id: str
    network: Network | None = None
    artifact: Artifact | None = None
    parent: str | None = None
    stage: str = "original"
    settings: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.network is None) == (self.artifact is None):
            raise LilliputError(f"candidate {self.id!r} needs a network or an artifact, not both")

    @property
    def kind(self) -> str:
        return "network" if self.network is not None else "artifact"

    def the_network(self) -> Network:
        if self.network is None:
            raise LilliputError(f"candidate {self.id!r} is a file; this needs a torch network")
        return self.network

    def the_artifact(self) -> Artifact:
        if self.artifact is None:
            raise LilliputError(f"candidate {self.id!r} is not exported yet; this needs a file")
        return self.artifact

    def measured(self, *figures: Measurement) -> Candidate:
        """The same candidate with more figures; a figure replaces an older one of its name."""
        return replace(self, measurements={**self.measurements, **{f.quantity: f for f in figures}})

    def labelled(self, *labels: str) -> Candidate:
        return replace(self, labels=(*self.labels, *(x for x in labels if x not in self.labels)))

    def value(self, quantity: str) -> float:
        """The figure's value, or NaN when it was not measured."""
        figure = self.measurements.get(quantity)
        return float("nan") if figure is None else figure.value
