"""The front as points: the chart of the report and that of a notebook show the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lilliput.budget import Budget
from lilliput.measurement import Measurement
from lilliput.runs.rows import Row, filled_columns, headers, metric_header


def chart_of(rows: Sequence[Row], budget: Budget) -> dict[str, Any]:
    """Points with their figures, the limits as lines, and the direction in which better lies.

    A file without a metric or without a time and size is no point; it is listed beside the chart.
    The others stand where their change against the original puts them, so that files scored on
    test and those scored on validation alone can be compared.
    """
    return {
        "metric": metric_header(rows),
        "higher_is_better": not any(_grows_when_worse(row) for row in rows),
        "points": [_point(row, rows) for row in rows if _drawable(row)],
        "untested": any(row.untested for row in rows),
        "undrawn": [row.path.name for row in rows if not _drawable(row)],
        "limits": _limits(rows, budget),
    }


def _drawable(row: Row) -> bool:
    timed = "latency" in row.figures or "bytes" in row.figures
    return timed and row.figure("metric") is not None


def _grows_when_worse(row: Row) -> bool:
    """Whether a loss shows as a larger metric, as an error's does."""
    drop = row.figure("drop")
    return drop is not None and row.change is not None and drop.value * row.change.value > 0


def _point(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    cells = row.cells()
    original = next((r.figure("metric") for r in rows if r.original), None)
    columns = [c for c in filled_columns([row]) if c != "file"]
    return {
        "id": row.id,
        "name": row.path.name,
        "kind": row.kind,
        "onFront": row.on_front,
        "latency": _value(row.figures.get("latency")),
        "latencyRange": _interval(row.figures.get("latency")),
        "bytes": _value(row.figures.get("bytes")),
        "metric": _height(row, original),
        "metricRange": _range_of_change(row, original),
        "details": [
            [head, cells[column]]
            for head, column in zip(headers(rows, columns), columns, strict=True)
        ],
    }


def _height(row: Row, original: Measurement | None) -> float:
    metric = row.figure("metric")
    assert metric is not None
    if original is None or row.change is None:
        return metric.value
    return original.value + row.change.value


def _range_of_change(row: Row, original: Measurement | None) -> list[float] | None:
    """The interval of the paired change, put where the metric is."""
    if row.original or original is None or row.change is None or row.change.interval is None:
        return None
    low, high = row.change.interval
    return [original.value + low, original.value + high]


def _limits(rows: Sequence[Row], budget: Budget) -> dict[str, float]:
    limits = budget.limits()
    found: dict[str, float] = {
        name: limits[name] for name in ("latency", "bytes") if name in limits
    }
    original = next((row for row in rows if row.original), None)
    metric = original.figure("metric") if original is not None else None
    if "drop" in limits and metric is not None:
        worse = any(_grows_when_worse(row) for row in rows)
        found["metric"] = metric.value + (limits["drop"] if worse else -limits["drop"])
    return found


def _value(figure: Measurement | None) -> float | None:
    return None if figure is None else figure.value


def _interval(figure: Measurement | None) -> list[float] | None:
    return None if figure is None or figure.interval is None else list(figure.interval)
