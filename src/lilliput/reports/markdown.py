"""The report as Markdown: what to take, the files and their figures, and how they were taken."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from lilliput.reports.conditions import reading, told
from lilliput.reports.fronts import HOW, SearchFront, fronts_of
from lilliput.reports.inside import inside_of
from lilliput.reports.searches import GENERATIONS, searches_of
from lilliput.reports.snippet import loading_code
from lilliput.reports.stages import STAGES_SAY, stage_rows
from lilliput.reports.summary import Summary
from lilliput.runs.rows import Row, filled_columns, headers, metric_header


def markdown(summary: Summary) -> str:
    """The whole page."""
    parts = [
        f"# {summary.path.resolve().name}",
        *_recommendation(summary),
        *(f"> **{warning}**" for warning in summary.warnings),
        *_files(summary),
        *_bill(summary),
        *_stages(summary),
        *_searches(summary),
        *_failures(summary),
        "## How these figures were taken",
        _table(["", ""], [[c.label, f"`{c.text}`" if c.code else c.text] for c in told(summary)]),
        "## Going on",
        *_going_on(summary),
    ]
    return "\n\n".join(parts) + "\n"


def _recommendation(summary: Summary) -> Iterator[str]:
    if summary.best is None or summary.best.artifact is None or summary.best_file is None:
        yield "No file was measured yet."
        return
    if summary.missed:
        by = "; ".join(str(miss) for miss in summary.missed)
        yield f"**The budget is missed.** The closest file is `{summary.best_file}`: {by}."
        if summary.reach:
            yield f"What would reach it: {summary.reach}."
    else:
        yield f"**Recommended: `{summary.best_file}`**"
    code = loading_code(summary.best_file, summary.best.artifact, summary.target)
    yield f"```python\n{code}\n```"


def _files(summary: Summary) -> Iterator[str]:
    front = [row for row in summary.rows if row.on_front]
    others = [row for row in summary.rows if not row.on_front]
    yield "## The front"
    yield _rows(front) if front else "No file has all its figures yet."
    if others:
        yield "## The other files"
        yield _rows(others)
    yield reading(summary)


def _bill(summary: Summary) -> Iterator[str]:
    """Of a packed file only: there the bytes were worked for."""
    inside = inside_of(summary)
    if inside is None or not inside["file"].endswith(".lil"):
        return
    yield f"## The bill of its {inside['length']} bytes"
    rows = [[item["name"], item["kind"], item["bytes"], item["percent"]] for item in inside["bill"]]
    if inside["rest"]:
        rows.append([f"{len(inside['rest'])} smaller ones", "", "", ""])
    yield _table([inside["file"], "", "bytes", "share"], rows)


def _stages(summary: Summary) -> Iterator[str]:
    rows = stage_rows(summary.history)
    if rows:
        yield "## The stages"
        columns = ["stage", "candidate", "made from", f"{metric_header(summary.rows)} before"]
        columns += ["after", "time"]
        yield _table(columns, [row.cells() for row in rows])
        yield STAGES_SAY


def _searches(summary: Summary) -> Iterator[str]:
    fronts = fronts_of(summary)
    for search in searches_of(summary.history):
        yield f"## The search {search.name}"
        yield _table(GENERATIONS, search.generations)
        yield from search.says
        if search.name in fronts:
            yield from _members(fronts[search.name])


def _members(front: SearchFront) -> Iterator[str]:
    """A search's own front, and how to have another network of it."""
    short = front.short()
    yield "### What it found"
    yield _table(front.heads, [front.cells(member) for member in short])
    yield from front.says
    if len(short) < len(front.members):
        left = len(front.members) - len(short)
        yield f"{left} more members are in report.html and report.json."
    other = next((member for member in short if not member.trained), None)
    if other is not None:
        yield (
            f"To have a member as a file, this one for example, {HOW}:\n\n"
            f"```yaml\n{front.lines(other)}\n```\n\nand go on with the run, which trains, exports "
            f"and measures it and searches nothing again:\n\n```\n{front.command}\n```"
        )


def _failures(summary: Summary) -> Iterator[str]:
    if summary.history.failures:
        yield "## What failed"
        rows = [
            [f"{f.number} {f.stage}".strip(), f.candidate, f.error]
            for f in summary.history.failures
        ]
        yield _table(["stage", "candidate", "reason"], rows)


def _rows(rows: Sequence[Row]) -> str:
    columns = filled_columns(rows)
    cells = [row.cells() for row in rows]
    return _table(headers(rows, columns), [[each[column] for column in columns] for each in cells])


def _going_on(summary: Summary) -> Iterator[str]:
    run = shlex.quote(str(summary.path))
    if summary.history.finished is None:
        yield f"What is done is kept. Go on with\n\n```\nlilliput resume {run}\n```"
    recipe = shlex.quote(str(summary.path / "recipe.yaml"))
    yield (
        "Measure the files again, ask why one is not faster, or edit the recipe and run it:\n\n"
        f"```\nlilliput measure {run}/files/*\nlilliput explain FILE\nlilliput run {recipe}\n```"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
