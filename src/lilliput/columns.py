"""Lines of cells as aligned text, for every table that is printed."""

from __future__ import annotations

from collections.abc import Container, Sequence

GAP = "  "


def aligned(lines: Sequence[Sequence[str]], *, right: Container[int] = ()) -> list[str]:
    """Each line's cells in columns as wide as their widest cell.

    Args:
        lines: Cells, equally many a line; the first line may be the heading.
        right: Positions of the columns that stand to the right.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        GAP.join(
            cell.rjust(width) if n in right else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
