"""The table in the terminal: the report's rows, as many columns as fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lilliput.runs.rows import NARROW, WIDE, Row, headers, plain_table

if TYPE_CHECKING:
    from rich.console import Console

ROOM_FOR_ALL = 170
LEFT = ("file", "precision", "made by", "remarks")


def show_rows(rows: Sequence[Row], console: Console) -> None:
    """Print the rows: all columns where the terminal is wide, plain text where it is none."""
    if not console.is_terminal:
        # A pipe has no width: nothing is cut off or folded.
        console.file.write(plain_table(rows, WIDE) + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    columns = WIDE if console.width >= ROOM_FOR_ALL else NARROW
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for name in headers(rows, columns):
        table.add_column(name, justify="left" if name in LEFT else "right", overflow="fold")
    for row in rows:
        cells = row.cells()
        style = "bold" if row.recommended else "" if row.on_front else "dim"
        table.add_row(*(Text(cells[column]) for column in columns), style=style)
    console.print(table)
