"""The tables of README and docs, written from the claims' results between two markers.

`<!-- claims:NAME -->` and `<!-- /claims:NAME -->` enclose what belongs to one claim; everything
between them is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.harness import HOME, ROOT, Claim, Row, read

_BLOCK = re.compile(
    r"(?P<open><!-- claims:(?P<name>[a-z0-9-]+) -->\n).*?(?P<close><!-- /claims:(?P=name) -->)",
    re.DOTALL,
)
_HOLDS = {True: "yes", False: "**no**", None: ""}


def documents(root: Path = ROOT) -> list[Path]:
    """The Markdown files that may hold tables."""
    return [
        path
        for path in (root / "README.md", *sorted((root / "docs").rglob("*.md")))
        if path.is_file()
    ]


def renew(paths: Iterable[Path], *, home: Path = HOME) -> list[Path]:
    """Rewrite every table from the results; returns the files that changed."""
    changed = []
    for path in paths:
        before = path.read_text()
        after = renewed(before, home=home)
        if after != before:
            path.write_text(after)
            changed.append(path)
    return changed


def stale(paths: Iterable[Path], *, home: Path = HOME) -> list[Path]:
    """The files whose tables differ from the results."""
    return [path for path in paths if renewed(path.read_text(), home=home) != path.read_text()]


def renewed(text: str, *, home: Path = HOME) -> str:
    """The text with every table replaced; raises `LilliputError` for a claim without a result."""

    def replace(match: re.Match[str]) -> str:
        return match["open"] + table(read(match["name"], home=home)) + match["close"]

    return _BLOCK.sub(replace, text)


def table(claim: Claim) -> str:
    """The claim as Markdown: its sentence, a row a figure, how to run it again."""
    cells = [("", "figure", "goal", "holds"), ("---", "---", "---", "---"), *_rows(claim)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    limits = [f"- {row.name}: {row.limits}" for row in claim.rows if row.limits]
    said = claim.conditions
    machine = said.get("machine", {})
    where = f"{machine.get('cpu', '?')} ({machine.get('isa', '?')}), {said.get('date', '?')[:10]}"
    again = f"`python -m benchmarks {claim.claim}` ({said.get('seconds', 0):.0f} s; {where})"
    blocks = [claim.says + ".", "\n".join(lines), *(["\n".join(limits)] if limits else []), again]
    return "\n" + "\n\n".join(blocks) + "\n\n"


def _rows(claim: Claim) -> Iterator[tuple[str, ...]]:
    for row in claim.rows:
        yield _cells(row.name, row)
    for peer in claim.peers:
        if len(peer.rows) == 1:
            yield _cells(f"{peer.name}: {peer.rows[0].name}", peer.rows[0])
            continue
        figures = (f"{_label(row.name, row)}: {figure_text(row)}" for row in peer.rows)
        yield peer.name, "<br>".join(figures), "", ""


def _cells(name: str, row: Row) -> tuple[str, ...]:
    return _label(name, row), figure_text(row), row.goal or "", _HOLDS[row.holds]


def _label(name: str, row: Row) -> str:
    return name + (f" ({row.isa})" if row.isa else "")


def figure_text(row: Row) -> str:
    """`0.58 points [0.41, 0.75]`, or "open" for a row that no machine has run yet."""
    if row.figure is None:
        return "open"
    text = f"{number(row.figure)} {row.unit}".strip()
    if row.unit == "B":
        text = re.sub(r"(?<=[kMG]) B$", "B", text)
    if row.interval is not None:
        text += f" [{number(row.interval[0])}, {number(row.interval[1])}]"
    return text


def number(value: float) -> str:
    """Four digits, thousands and millions written out short: 20.1 M, 291 k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g} {letter}"
    return f"{value:.4g}"
