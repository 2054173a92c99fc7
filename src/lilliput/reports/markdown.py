"""The report as Markdown: what to take, the files and their figures, and how they were taken."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from lilliput.reports.snippet import loading_code
from lilliput.reports.summary import Summary
from lilliput.runs.rows import Row, filled_columns, headers
from lilliput.units import format_seconds


def markdown(summary: Summary) -> str:
    """The whole page."""
    parts = [
        f"# {summary.path.resolve().name}",
        *_recommendation(summary),
        *(f"> **{warning}**" for warning in summary.warnings),
        *_files(summary),
        *_failures(summary),
        "## How these figures were taken",
        _table(["", ""], list(_conditions(summary))),
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
    code = loading_code(summary.best_file, summary.best.artifact, summary.target.runtime)
    yield f"```python\n{code}\n```"


def _files(summary: Summary) -> Iterator[str]:
    front = [row for row in summary.rows if row.on_front]
    others = [row for row in summary.rows if not row.on_front]
    yield "## The front"
    yield _rows(front) if front else "No file has all its figures yet."
    if others:
        yield "## The other files"
        yield _rows(others)
    splits = sorted({row.split for row in summary.rows})
    yield (
        "★ is the recommended file. Speed is that of the original file divided into, both timed "
        "in turn; *faster* and *slower* are said only when the 95 % interval excludes 1 by more "
        "than the noise. MACs and weights are counted in the graph, not measured. Quality is of "
        f"the {' and '.join(splits) or 'validation'} split; the change is paired example by "
        "example with the original."
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


def _conditions(summary: Summary) -> Iterator[list[str]]:
    found = summary.conditions
    machine, data = found["machine"], dict(found["data"])
    yield ["target", found["target"]]
    yield ["limits", ", ".join(f"{k} ≤ {v:g}" for k, v in found["limits"].items()) or "none"]
    yield ["machine", ", ".join(f"{k} {v}" for k, v in machine.items())]
    yield ["versions", ", ".join(f"{k} {v}" for k, v in found["versions"].items())]
    yield ["other load", _load(found["other_load_cores"], found["noise_floor"])]
    yield ["data", _pairs(data)]
    yield ["seed", str(found["seed"])]
    yield ["command", f"`{found['command']}` in `{found['folder']}`"]
    yield ["time", f"{found['began']} to {found['ended']}, {found['sessions']} session(s)"]
    finished = summary.history.finished
    if finished is not None and "seconds" in finished:
        yield ["last session", format_seconds(float(finished["seconds"]))]


def _load(cores: float | None, floor: float | None) -> str:
    if cores is None:
        return "nothing was timed"
    told = f"at most {cores:.2f} cores were used by others"
    return told if floor is None else f"{told}; differences below {floor:.1%} are called a tie"


def _pairs(facts: dict[str, Any]) -> str:
    told = []
    for key, value in facts.items():
        if value in ("", None, False):
            continue
        inner = _pairs(value) if isinstance(value, dict) else str(value)
        told.append(f"{key} ({inner})" if isinstance(value, dict) else f"{key} {inner}")
    return ", ".join(told)


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
