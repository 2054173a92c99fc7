"""What each stage made of each candidate, and the metric before and after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lilliput.measurement import Measurement
from lilliput.runs.history import History
from lilliput.runs.rows import made_by
from lilliput.units import format_seconds

STAGES_SAY = (
    "Validation split throughout, so that stages can be compared. ≈ marks a score of the network "
    "in torch, on some of the examples; the others are of files."
)


@dataclass(frozen=True)
class StageRow:
    """One candidate that came out of a stage. `seconds` is of the whole stage, in its first row."""

    number: int
    stage: str
    candidate: str
    parent: str
    settings: str
    before: Measurement | None
    after: Measurement | None
    seconds: float | None

    def cells(self) -> list[str]:
        """Stage with its settings, candidate, parent, metric before and after, time."""
        made = self.settings or self.stage
        time = "" if self.seconds is None else format_seconds(self.seconds)
        stage = f"{self.number} {made}"
        return [stage, self.candidate, self.parent, _shown(self.before), _shown(self.after), time]


def stage_rows(history: History) -> tuple[StageRow, ...]:
    """A row for every candidate of every stage that is done, in their order.

    A candidate that a stage passes on unchanged has no row: nothing was done to it.
    """
    return tuple(_rows(history))


def _rows(history: History) -> Iterator[StageRow]:
    figures, seen = _figures(history), {"original"}
    for stage in history.stages:
        seconds: float | None = float(stage.get("seconds", 0.0))
        for made in _made(stage):
            name, parent = str(made.get("id")), str(made.get("parent") or "")
            if name in seen:
                continue
            seen.add(name)
            yield StageRow(
                number=int(stage.get("number", 0)),
                stage=str(stage.get("name", "")),
                candidate=name,
                parent=parent,
                settings=made_by([made.get("settings") or {}]),
                before=figures.get(parent),
                after=figures.get(name),
                seconds=seconds,
            )
            seconds = None


def _made(stage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    made = stage.get("made")
    return [one for one in made if isinstance(one, Mapping)] if isinstance(made, list) else []


def _figures(history: History) -> dict[str, Measurement]:
    """{candidate: its metric on validation}: of the file, else of the network in torch."""
    found: dict[str, Measurement] = {}
    for made in (one for stage in history.stages for one in _made(stage)):
        figures = made.get("figures") or {}
        for quantity in ("proxy", "metric"):
            if quantity in figures:
                found[str(made.get("id"))] = Measurement.model_validate(figures[quantity])
    for record in history.files:
        if "metric" in record.measurements:
            found[record.id] = record.measurements["metric"]
    reference = next((r for r in history.files if "ratio" in r.measurements), None)
    if reference is not None and "metric" in reference.measurements:
        found.setdefault("original", reference.measurements["metric"])
    return found


def _shown(figure: Measurement | None) -> str:
    if figure is None:
        return ""
    return f"{'≈ ' if figure.estimated else ''}{figure.value:.2f}"
