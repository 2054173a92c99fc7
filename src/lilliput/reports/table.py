"""The table in the terminal: the report's rows, as many columns as fit, never folded."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lilliput.columns import GAP, aligned
from lilliput.runs.rows import NARROW, Row, filled_columns, headers

if TYPE_CHECKING:
    from rich.console import Console

WITHOUT_TERMINAL = 120
"""Characters of a line in a pipe or a log, unless COLUMNS says otherwise."""

LEFT = ("file", "precision", "made by")

MORE = ("precision", "also", "made by", "p90", "MACs", "weights")
"""Columns beside the narrow ones, the most telling first: each comes if it fits."""

FIRST_TO_GO = ("change", "latency", "size", "metric", "speed")

_INTERVAL = re.compile(r" \[[^]]*\]")


def show_rows(rows: Sequence[Row], console: Console) -> None:
    """Print a line a file, as wide as the terminal is, and the remarks below them."""
    width = console.width if console.is_terminal else _width_of_a_pipe()
    lines = fitted(rows, width)
    for number, line in enumerate(lines):
        row = rows[number - 1] if number else None
        style = "" if row is not None and row.on_front else "dim"
        bold = row is None or row.recommended
        console.print(
            line, style="bold" if bold else style, markup=False, highlight=False, soft_wrap=True
        )
    for row in rows:
        if row.remarks:
            told = f"  {row.path.name}: {'; '.join(row.remarks)}"
            console.print(told, style="dim", markup=False, highlight=False, soft_wrap=True)


def fitted(rows: Sequence[Row], width: int) -> list[str]:
    """Heading and rows as lines of at most `width` characters.

    Where there is little room, intervals go first, then columns, then the middle of long names;
    where there is much, more columns come. How a file was made is told by its stages alone: their
    settings are in the report.
    """
    cells = [_brief(row) for row in rows]
    columns = [name for name in NARROW if name in filled_columns(rows, NARROW)]
    if _needed(rows, cells, columns) > width:
        cells = [{name: _INTERVAL.sub("", text) for name, text in line.items()} for line in cells]
    for name in FIRST_TO_GO:
        if name in columns and _needed(rows, cells, columns) > width:
            columns.remove(name)
    for name in filled_columns(rows, MORE):
        if _needed(rows, cells, [*columns, name]) <= width:
            columns.append(name)
    room = width - _needed(rows, cells, columns) + _widest(rows, cells, "file")
    cells = [{**line, "file": shortened(line["file"], max(room, 8))} for line in cells]
    table = [headers(rows, columns), *([line[name] for name in columns] for line in cells)]
    right = [n for n, name in enumerate(columns) if name not in LEFT]
    return aligned(table, right=right)


def shortened(text: str, width: int) -> str:
    """The text with its middle left out where it is longer than `width`."""
    if len(text) <= width:
        return text
    front = (width - 1) // 2
    return f"{text[:front]}…{text[len(text) - (width - 1 - front) :]}"


def _brief(row: Row) -> dict[str, str]:
    made = row.cells()["made by"] if row.original else " → ".join(row.stages)
    return {**row.cells(), "made by": made}


def _widest(rows: Sequence[Row], cells: Sequence[Mapping[str, str]], name: str) -> int:
    return max(len(text) for text in (*headers(rows, [name]), *(line[name] for line in cells)))


def _needed(rows: Sequence[Row], cells: Sequence[Mapping[str, str]], columns: Sequence[str]) -> int:
    return sum(_widest(rows, cells, name) for name in columns) + len(GAP) * (len(columns) - 1)


def _width_of_a_pipe() -> int:
    return shutil.get_terminal_size((WITHOUT_TERMINAL, 24)).columns
