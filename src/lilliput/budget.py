"""The user's limits, and by how much a file meets or misses them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ConfigDict, Field

from lilliput.measurement import Measurement
from lilliput.noun import Noun
from lilliput.units import format_quantity

CALLED = {"bytes": "size", "macs": "MACs", "params": "weights"}
"""What people call the quantities that are measured under other names."""


class Miss(Noun):
    """One limit that a file does not keep: `got` against `limit`, in `unit`."""

    quantity: str
    limit: float
    got: float
    unit: str

    def __str__(self) -> str:
        got, limit, short = (
            format_quantity(self.quantity, value, self.unit)
            for value in (self.got, self.limit, abs(self.got - self.limit))
        )
        name = CALLED.get(self.quantity, self.quantity)
        return f"{name} {got} misses the limit of {limit} by {short}"


class Budget(Noun):
    """Limits on a deployed file; None means no limit. `max_drop` is in the metric's own unit."""

    model_config = ConfigDict(allow_inf_nan=False)

    max_latency_ms: float | None = Field(None, gt=0, description="median latency on the target")
    max_bytes: int | None = Field(None, gt=0, description="length of the file")
    max_drop: float | None = Field(None, ge=0, description="loss of the metric, in its unit")
    max_macs: float | None = Field(None, gt=0, description="multiply-adds of one forward pass")
    max_params: float | None = Field(None, gt=0, description="number of weights")

    def limits(self) -> dict[str, float]:
        """{measured quantity: limit} of the limits that are set."""
        named = {
            "latency": self.max_latency_ms,
            "bytes": self.max_bytes,
            "drop": self.max_drop,
            "macs": self.max_macs,
            "params": self.max_params,
        }
        return {quantity: float(limit) for quantity, limit in named.items() if limit is not None}

    def before_packing(self, share: float) -> Budget:
        """The budget of a file that is to be packed into `share` of its bytes."""
        if self.max_bytes is None:
            return self
        return self.model_copy(update={"max_bytes": int(self.max_bytes / share)})

    def misses(self, measurements: Mapping[str, Measurement]) -> tuple[Miss, ...]:
        """The limits that these figures break. A quantity that was not measured is not a miss."""
        return tuple(
            Miss(
                quantity=name,
                limit=limit,
                got=measurements[name].value,
                unit=measurements[name].unit,
            )
            for name, limit in self.limits().items()
            if name in measurements and measurements[name].value > limit
        )

    def shortfall(self, measurements: Mapping[str, Measurement]) -> float:
        """Sum of relative overruns, 0 when met: orders candidates that miss a budget."""
        return sum(miss.got / max(miss.limit, 1e-9) - 1.0 for miss in self.misses(measurements))
