"""The report as one HTML file: opens from disk, fetches nothing, and lets nothing be fetched.

Every text goes through the template's escaping. The page's policy names the hashes of its own
scripts, so that a script smuggled in through a name would not run even if the escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lilliput.reports.conditions import reading, told
from lilliput.reports.fronts import HOW, fronts_of
from lilliput.reports.inside import inside_of
from lilliput.reports.searches import GENERATIONS, searches_of
from lilliput.reports.snippet import loading_code
from lilliput.reports.stages import STAGES_SAY, stage_rows
from lilliput.reports.suffering import suffering_of
from lilliput.reports.summary import Summary
from lilliput.runs.chart import chart_of
from lilliput.runs.rows import Row, filled_columns, headers, metric_header
from lilliput.units import format_bytes

if TYPE_CHECKING:
    from jinja2 import Template

ASSETS = Path(__file__).with_name("assets")
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "report.js")

WORDS = frozenset({"file", "precision", "made by", "remarks"})
"""Columns of text; the others are figures and stand to the right."""

LONG = {"made by": "long", "remarks": "long"}
"""Columns whose text is cut to two lines; all of it shows when the file is pointed at."""

MOST_SAMPLE_BYTES = 200_000
"""A picture beyond this is not taken into the page: someone else put it there."""


def page(summary: Summary) -> str:
    """The whole page, with everything in it."""
    scripts = [_asset(name) for name in SCRIPTS]
    fronts = fronts_of(summary)
    return _template().render(
        title=summary.path.resolve().name,
        licence=_asset("vendor/LICENSE"),
        style=_asset("report.css"),
        scripts=scripts,
        script_hashes=[_policy_hash(script) for script in scripts],
        summary=summary,
        best=next((row for row in summary.rows if row.recommended), None),
        badge=_badge(summary),
        tiles=_tiles(summary),
        chart={
            **chart_of(summary.rows, summary.budget),
            "searches": {name: front.chart() for name, front in fronts.items()},
        },
        files=_files(summary),
        reading=reading(summary),
        samples=_samples(summary),
        stages=[row.cells() for row in stage_rows(summary.history)],
        stages_say=STAGES_SAY,
        searches=searches_of(summary.history),
        generations=GENERATIONS,
        fronts=fronts,
        how=HOW,
        metric=metric_header(summary.rows),
        inside=inside_of(summary),
        suffering=[suffering_of(found) for found in summary.sensitivities],
        conditions=list(told(summary)),
        code=_code(summary),
    )


def _files(summary: Summary) -> dict[str, Any]:
    """The rows of report.md as one table that can be sorted."""
    columns = filled_columns(summary.rows)
    heads = headers(summary.rows, columns)
    return {
        "columns": [
            {"head": head, "words": column in WORDS}
            for head, column in zip(heads, columns, strict=True)
        ],
        "rows": [
            {
                "id": row.id,
                "kind": row.kind,
                "cells": [
                    {
                        "text": row.cells()[column],
                        "sort": _sort_key(row, column),
                        "look": LONG.get(column, "word" if column in WORDS else "number"),
                    }
                    for column in columns
                ],
            }
            for row in summary.rows
        ],
    }


def _sort_key(row: Row, column: str) -> str:
    """What a column is sorted by: the figure itself, or the text; "" comes last."""
    if column in WORDS:
        return row.path.name.lower() if column == "file" else row.cells()[column].lower()
    names = {"size": "bytes", "p90": "latency_p90", "MACs": "macs", "weights": "params"}
    if column == "speed":
        ratio = row.figures.get("ratio")
        return "" if ratio is None else repr(1 / ratio.value)
    if column == "change":
        figure = row.change
    elif column == "also":
        figure = next(iter(row.also.values()), None)
    else:
        figure = row.figure(names.get(column, column))
    return "" if figure is None else repr(figure.value)


def _badge(summary: Summary) -> dict[str, str]:
    """What is said of the budget beside the recommended file."""
    if not summary.budget.limits():
        return {"look": "kept", "text": "recommended"}
    if summary.lost_on_test is not None:
        return {"look": "missed", "text": "budget kept on validation, missed on test"}
    return {"look": "kept", "text": "budget kept"}


def _tiles(summary: Summary) -> list[dict[str, str]]:
    """The recommended file against the original, in a few large figures."""
    best = next((row for row in summary.rows if row.recommended), None)
    original = next((row for row in summary.rows if row.original), None)
    if best is None or original is None or best is original:
        return []
    cells = best.cells()
    speed, _, rest = cells["speed"].partition(" ")
    interval = rest.removesuffix(best.verdict).strip()
    verdict = {"tie": "as fast, within the noise"}.get(best.verdict, best.verdict)
    ours, theirs = best.figures.get("bytes"), original.figures.get("bytes")
    tiles = [
        {"name": "speed", "figure": speed, "say": f"{verdict} {interval}".strip()},
        {
            "name": "latency",
            "figure": cells["latency"].partition(" [")[0],
            "say": f"original {original.cells()['latency'].partition(' [')[0]}",
        },
        {
            "name": metric_header(summary.rows),
            "figure": cells["metric"],
            "say": f"change {cells['change']}",
        },
    ]
    if ours is not None and theirs is not None:
        smaller = f"{theirs.value / ours.value:.1f}× smaller"
        say = f"{smaller} than {format_bytes(theirs.value)}"
        tiles.append({"name": "size", "figure": cells["size"], "say": say})
    return [tile for tile in tiles if tile["figure"]]


def _samples(summary: Summary) -> dict[str, Any]:
    """The samples with their pictures as data; those whose picture is gone are left out."""
    noted = summary.samples
    examples = []
    for example in noted.get("examples") or []:
        shown = {role: _shown(answer, summary.path) for role, answer in example.items()}
        if all(answer is not None for answer in shown.values()):
            examples.append(shown)
    return {**noted, "examples": examples}


def _shown(answer: dict[str, str], root: Path) -> dict[str, str] | None:
    if "picture" not in answer:
        return {"text": str(answer.get("text", ""))}
    folder, path = (root / "samples").resolve(), (root / answer["picture"]).resolve()
    # The journal may come from elsewhere: only what lies among the samples is shown.
    if not path.is_relative_to(folder) or not path.is_file():
        return None
    content = path.read_bytes()
    if len(content) > MOST_SAMPLE_BYTES or not content.startswith(b"\x89PNG"):
        return None
    return {"source": f"data:image/png;base64,{base64.b64encode(content).decode()}"}


def _code(summary: Summary) -> str:
    if summary.best is None or summary.best.artifact is None or summary.best_file is None:
        return ""
    return loading_code(summary.best_file, summary.best.artifact, summary.target)


def _policy_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
