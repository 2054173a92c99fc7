"""The tables of README and docs, written from the claims' results between two markers.

`<!-- claims:NAME -->` and `<!-- /claims:NAME -->` enclose what belongs to one claim; everything
between them is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import HOME, ROOT, Claim, Peer, Row, read

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
    """The claim as Markdown: its sentence, a row a figure, its peers, how to run it again."""
    head = ("", "figure", "goal", "holds")
    limits = [f"- {row.name}: {row.limits}" for row in claim.rows if row.limits]
    said = claim.conditions
    machine = said.get("machine", {})
    where = f"{machine.get('cpu', '?')} ({machine.get('isa', '?')}), {said.get('date', '?')[:10]}"
    blocks = [
        claim.says + ".",
        _markdown(head, (_cells(row) for row in claim.rows)),
        "\n".join(limits),
        _beside(claim.peers) if claim.peers else "",
        f"`python -m benchmarks {claim.claim}` ({_duration(said)}; {where})",
    ]
    return "\n" + "\n\n".join(filter(None, blocks)) + "\n\n"


def _duration(said: Mapping[str, Any]) -> str:
    seconds, before = said.get("seconds", 0), said.get("seconds_of_parts", 0)
    return f"{seconds:.0f} s" + (f", after parts of {before:.0f} s" if before else "")


def _beside(peers: Sequence[Peer]) -> str:
    """A row a peer and a column a figure; the other way round where that is narrower."""
    found = {peer.name: {_label(row): figure_text(row) for row in peer.rows} for peer in peers}
    names = list(found)
    labels = list(dict.fromkeys(label for figures in found.values() for label in figures))
    if len(labels) > len(names):
        rows = [(label, *(found[name].get(label, "") for name in names)) for label in labels]
        return _markdown(("beside it", *names), rows)
    rows = [(name, *(found[name].get(label, "") for label in labels)) for name in names]
    return _markdown(("beside it", *labels), rows)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _cells(row: Row) -> tuple[str, ...]:
    return _label(row), figure_text(row), row.goal or "", _HOLDS[row.holds]


def _label(row: Row) -> str:
    return row.name + (f" ({row.isa})" if row.isa else "")


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
