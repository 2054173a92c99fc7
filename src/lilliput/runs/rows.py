"""A run's files as rows of a table: the same figures in the terminal, the report and a notebook."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from lilliput.artifact import Artifact
from lilliput.columns import aligned
from lilliput.measurement import ALSO, Measurement
from lilliput.runs.front import Figured
from lilliput.units import format_bytes, format_count, format_ms

MINUS = "−"

NARROW = ("file", "metric", "change", "latency", "speed", "size")
"""The columns that are always shown; the others come where there is room."""
WIDE = (*NARROW, "also", "p90", "MACs", "weights", "precision", "made by", "remarks")
"""All columns; `filled_columns` leaves out those in which no row has anything."""


class FileLike(Figured, Protocol):
    """A candidate or its record, which is a file."""

    @property
    def artifact(self) -> Artifact | None: ...
    @property
    def history(self) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True)
class Row:
    """One file. `metric` and `drop` are of the test split if it was scored, else of validation.

    `change` is the metric's difference to the original's with the interval of the paired drop.
    `untested` says that others were scored on test and this one on validation alone.
    """

    id: str
    path: Path
    figures: Mapping[str, Measurement]
    change: Measurement | None
    split: str
    on_front: bool
    recommended: bool
    original: bool
    precision: str
    stages: tuple[str, ...]
    made_by: str
    labels: tuple[str, ...]
    untested: bool = False

    @property
    def worth_showing(self) -> bool:
        """Whether it belongs into a short table: the front, the recommended one, the original."""
        return self.on_front or self.recommended or self.original

    @property
    def kind(self) -> str:
        """What it is to the reader: "best", "original", "front" or "other"."""
        if self.recommended:
            return "best"
        if self.original:
            return "original"
        return "front" if self.on_front else "other"

    @property
    def verdict(self) -> str:
        """faster, slower or tie, against the original; "" when it was not timed."""
        ratio = self.figures.get("ratio")
        return str(ratio.conditions.get("verdict", "")) if ratio is not None else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Labels, what it was scored on, and why its times are not to be trusted if so."""
        latency = self.figures.get("latency")
        doubts = latency.conditions.get("unstable_because", ()) if latency is not None else ()
        split = ("scored on validation alone",) if self.untested else ()
        return (*self.labels, *split, *(f"unstable: {doubt}" for doubt in doubts))

    def figure(self, quantity: str) -> Measurement | None:
        """The figure on the test split where there is one, else as it was measured."""
        return self.figures.get(f"test_{quantity}") or self.figures.get(quantity)

    @property
    def also(self) -> Mapping[str, Measurement]:
        """{name: figure} of what the task reports beside its metric, of the same split."""
        prefix = f"{'test_' if self.split == 'test' else ''}{ALSO}"
        return {
            quantity.removeprefix(prefix): figure
            for quantity, figure in self.figures.items()
            if quantity.startswith(prefix)
        }

    def cells(self) -> dict[str, str]:
        """{column: text} for every column of `WIDE`."""
        mark = "★ " if self.recommended else ("" if self.on_front else "· ")
        return {
            "file": f"{mark}{self.path.name}",
            "metric": _plain(self.figure("metric")),
            "change": _signed(self.change),
            "latency": _latency(self.figures.get("latency")),
            "speed": "1.00×" if self.original else _speed(self.figures.get("ratio"), self.verdict),
            "size": _shown(self.figures.get("bytes"), format_bytes),
            "also": " / ".join(f"{figure.value:.4f}" for figure in self.also.values()),
            "p90": _shown(self.figures.get("latency_p90"), format_ms),
            "MACs": _shown(self.figures.get("macs"), format_count),
            "weights": _shown(self.figures.get("params"), format_count),
            "precision": self.precision,
            "made by": "the original" if self.original else self.made_by,
            "remarks": "; ".join(self.remarks),
        }


def rows_of(
    files: Sequence[FileLike], *, front: Collection[str] = (), best: str | None = None
) -> tuple[Row, ...]:
    """A row for every file, the recommended one first, then the front by speed, then the others.

    Args:
        files: Candidates or records that have a file; the first that was timed is the original.
        front: Ids of those on the front.
        best: The id of the recommended one.
    """
    known = [f for f in files if f.artifact is not None]
    original = next((f for f in known if "ratio" in f.measurements), None)
    rows = [_row(f, original, on_front=f.id in front, recommended=f.id == best) for f in known]
    tested = any(row.split == "test" for row in rows)
    marked = [replace(row, untested=tested and row.split != "test") for row in rows]
    return tuple(sorted(marked, key=_rank))


def metric_header(rows: Sequence[Row]) -> str:
    """The metric's name with its unit, "top-1, %"; "metric" where nothing was scored."""
    for row in rows:
        figure = row.figure("metric")
        if figure is not None:
            name = str(figure.conditions.get("metric", "metric"))
            return f"{name}, {figure.unit}" if figure.unit else name
    return "metric"


def also_header(rows: Sequence[Row]) -> str:
    """The names of what is reported beside the metric, "SSIM on luminance"."""
    return next((" / ".join(row.also) for row in rows if row.also), "also")


def headers(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """What stands over the columns; the metric is called by its name, as is what goes with it."""
    named = {"metric": metric_header(rows), "also": also_header(rows)}
    return [named.get(column, column) for column in columns]


def filled_columns(rows: Sequence[Row], columns: Sequence[str] = WIDE) -> tuple[str, ...]:
    """Those of the columns in which at least one row says something."""
    cells = [row.cells() for row in rows]
    return tuple(column for column in columns if any(line[column] for line in cells))


def plain_table(rows: Sequence[Row], columns: Sequence[str] = NARROW) -> str:
    """The rows as aligned text."""
    lines = [headers(rows, columns), *([row.cells()[c] for c in columns] for row in rows)]
    return "\n".join(aligned(lines))


def made_by(history: Sequence[Mapping[str, Any]]) -> str:
    """The stages that made a file, with the settings that are not the defaults."""
    steps = []
    for entry in history:
        for name, settings in entry.items():
            told = ", ".join(f"{k}={v}" for k, v in dict(settings or {}).items())
            steps.append(f"{name}({told})" if told else name)
    return " → ".join(steps)


def _row(file: FileLike, original: FileLike | None, *, on_front: bool, recommended: bool) -> Row:
    artifact = file.artifact
    assert artifact is not None
    split = "test" if "test_metric" in file.measurements else "validation"
    return Row(
        id=file.id,
        path=artifact.path,
        figures=file.measurements,
        change=_change(file, original, "test_" if split == "test" else ""),
        split=split,
        on_front=on_front,
        recommended=recommended,
        original=original is not None and file.id == original.id,
        precision=artifact.metadata.precision,
        stages=tuple(name for entry in file.history for name in entry),
        made_by=made_by(file.history),
        labels=file.labels,
    )


def _change(file: FileLike, original: FileLike | None, prefix: str) -> Measurement | None:
    """The drop, signed as the metric itself changed: less is negative, be it accuracy or error."""
    drop = file.measurements.get(f"{prefix}drop")
    ours = file.measurements.get(f"{prefix}metric")
    theirs = original.measurements.get(f"{prefix}metric") if original is not None else None
    if drop is None or ours is None or theirs is None:
        return None
    moved = ours.value - theirs.value
    if abs(moved - drop.value) < abs(moved + drop.value):
        return drop.model_copy(update={"quantity": "change"})
    low, high = drop.interval or (drop.value, drop.value)
    interval = None if drop.interval is None else (-high, -low)
    negated = {"quantity": "change", "value": -drop.value, "interval": interval}
    return drop.model_copy(update=negated)


def _rank(row: Row) -> tuple[bool, bool, float]:
    ratio = row.figures.get("ratio")
    return not row.recommended, not row.on_front, ratio.value if ratio else float("inf")


def _shown(figure: Measurement | None, form: Any) -> str:
    return "" if figure is None else str(form(figure.value))


def _plain(figure: Measurement | None) -> str:
    return "" if figure is None else f"{figure.value:.2f}"


def _signed(figure: Measurement | None) -> str:
    if figure is None:
        return ""
    text = _sign(figure.value)
    if figure.interval is not None:
        text += f" [{_sign(figure.interval[0])}, {_sign(figure.interval[1])}]"
    return text


def _sign(value: float) -> str:
    shown = f"{value:+.2f}"
    return "0.00" if float(shown) == 0 else shown.replace("-", MINUS)


def _latency(figure: Measurement | None) -> str:
    if figure is None:
        return ""
    text = format_ms(figure.value)
    if figure.interval is not None:
        low, high = (format_ms(x).removesuffix(" ms") for x in figure.interval)
        text += f" [{low}, {high}]"
    return text


def _speed(ratio: Measurement | None, verdict: str) -> str:
    """Times as fast as the original: the inverse of the ratio of times."""
    if ratio is None:
        return ""
    text = f"{1 / ratio.value:.2f}×"
    if ratio.interval is not None:
        low, high = ratio.interval
        text += f" [{1 / high:.2f}, {1 / low:.2f}]"
    return f"{text} {verdict}".rstrip()
