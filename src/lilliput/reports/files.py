"""The report's files: Markdown and HTML for people, JSON for programs, CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.measurement import Measurement
from lilliput.reports.fronts import fronts_of
from lilliput.reports.html import page
from lilliput.reports.markdown import markdown
from lilliput.reports.summary import Summary
from lilliput.runs.folder import RunFolder
from lilliput.runs.rows import Row

QUANTITIES = ("metric", "drop", "latency", "latency_p90", "ratio", "bytes", "macs", "params")


@dataclass(frozen=True)
class Report:
    """A report that was written. Prints as its Markdown."""

    path: Path
    text: str
    data: dict[str, Any]

    @property
    def page(self) -> Path:
        """The same as HTML, to be opened in a browser."""
        return self.path.with_suffix(".html")

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


def write_report(run: RunFolder) -> Report:
    """Write report.md, report.html, report.json and front.csv from the run's journal.

    Raises:
        LilliputError: A line of the journal was changed.
    """
    summary = Summary.of(run)
    text, data = markdown(summary), as_json(summary)
    run.write("report.json", json.dumps(data, indent=1) + "\n")
    run.write("front.csv", as_csv(summary))
    run.write("report.html", page(summary))
    return Report(run.write("report.md", text), text, data)


def as_json(summary: Summary) -> dict[str, Any]:
    """Everything that the report says, as plain values; figures keep unit, interval, conditions."""
    return {
        "run": str(summary.path),
        "finished": summary.history.finished is not None,
        "recommended": None if summary.best_file is None else str(summary.best_file),
        "missed": [miss.model_dump(mode="json") for miss in summary.missed],
        "what_would_reach": summary.reach,
        "warnings": list(summary.warnings),
        "front": [record.id for record in summary.front],
        "files": [_row_json(row, summary) for row in summary.rows],
        "searches": [front.as_json(name) for name, front in fronts_of(summary).items()],
        "failures": [failure.model_dump(mode="json") for failure in summary.history.failures],
        "conditions": summary.conditions,
    }


def _row_json(row: Row, summary: Summary) -> dict[str, Any]:
    record = summary.history.records[row.id]
    assert record.artifact is not None
    return {
        "id": row.id,
        "file": str(row.path),
        "sha256": record.artifact.sha256,
        "parent": record.parent,
        "precision": row.precision,
        "split": row.split,
        "on_front": row.on_front,
        "recommended": row.recommended,
        "verdict": row.verdict,
        "labels": list(row.labels),
        "history": list(record.history),
        "facts": record.artifact.facts,
        "figures": {k: v.model_dump(mode="json") for k, v in row.figures.items()},
    }


def as_csv(summary: Summary) -> str:
    """A line per file; every line names its seed, data, versions and command."""
    conditions = summary.conditions
    versions = " ".join(f"{k}={v}" for k, v in conditions["versions"].items())
    data = conditions["data"]
    shared = {
        "target": conditions["target"],
        "cpu": conditions["machine"].get("cpu", ""),
        "seed": conditions["seed"],
        "data": data.get("name", ""),
        "data_hash": data.get("sha256", data.get("hash", "")),
        "versions": versions,
        "command": conditions["command"],
    }
    lines = [{**_row_csv(row, summary), **shared} for row in summary.rows]
    names = list(lines[0]) if lines else ["file", *shared]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _row_csv(row: Row, summary: Summary) -> dict[str, Any]:
    record = summary.history.records[row.id]
    assert record.artifact is not None
    figures: dict[str, Any] = {}
    for quantity in QUANTITIES:
        figures |= _figure_csv(quantity, row.figure(quantity))
    return {
        "file": str(row.path),
        "sha256": record.artifact.sha256,
        "recommended": row.recommended,
        "on_front": row.on_front,
        "split": row.split,
        "verdict": row.verdict,
        "precision": row.precision,
        "made_by": row.made_by,
        "remarks": "; ".join(row.remarks),
        **figures,
    }


def _figure_csv(quantity: str, figure: Measurement | None) -> dict[str, Any]:
    """The value, and its interval where the quantity has one; units are in the names."""
    name = f"{quantity}_ms" if quantity.startswith("latency") else quantity
    low, high = ("", "") if figure is None or figure.interval is None else figure.interval
    found: dict[str, Any] = {name: "" if figure is None else figure.value}
    if quantity in ("metric", "drop", "latency", "ratio"):
        found |= {f"{name}_low": low, f"{name}_high": high}
    return found
