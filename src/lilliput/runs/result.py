"""What a run came to, as an object: its files, its front, the recommended one, what is missed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lilliput.budget import Budget, Miss
from lilliput.candidate import Candidate
from lilliput.errors import LilliputError
from lilliput.runs.chart import chart_of
from lilliput.runs.folder import RunFolder
from lilliput.runs.front import pareto, recommend, what_would_reach
from lilliput.runs.history import Failure
from lilliput.runs.picture import picture
from lilliput.runs.record import candidate_from_json
from lilliput.runs.rows import NARROW, Row, headers, plain_table, rows_of

if TYPE_CHECKING:
    from lilliput.network import Network

MISSED = 3
"""Exit code when no file keeps the budget; the files are there nevertheless."""


class Front(tuple[Candidate, ...]):
    """The files that no other beats, in the order of their making.

    Prints as a table; in a notebook it is a chart of all files of the run, and the table.

    Args:
        files: Those on the front.
        rows: A row for every file of the run.
        budget: Drawn as limits.
    """

    rows: tuple[Row, ...]
    budget: Budget

    def __new__(
        cls, files: Iterable[Candidate] = (), rows: Sequence[Row] = (), budget: Budget | None = None
    ) -> Front:
        front = super().__new__(cls, files)
        front.rows, front.budget = tuple(rows), budget or Budget()
        return front

    def __str__(self) -> str:
        return plain_table(self._shown)

    @property
    def _shown(self) -> list[Row]:
        """The front, and the original."""
        return [row for row in self.rows if row.worth_showing]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in headers(self._shown, NARROW))
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(row.cells()[c])}</td>" for c in NARROW) + "</tr>"
            for row in self._shown
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div>{picture(chart_of(self.rows, self.budget))}{table}</div>"


@dataclass(frozen=True)
class RunResult:
    """A run's files with their figures. In a notebook it shows itself as chart and table.

    `best` is the recommended file: the fastest that keeps the budget, or the closest to it, and
    then `missed` says by how much and `reach` what the files at hand would keep.
    """

    path: Path
    candidates: tuple[Candidate, ...]
    front: Front
    best: Candidate | None
    missed: tuple[Miss, ...] = ()
    failures: tuple[Failure, ...] = ()
    reach: str = ""

    @classmethod
    def of(cls, run: RunFolder) -> RunResult:
        """What the journal of this run adds up to.

        Raises:
            LilliputError: A file of the run is gone or was changed.
        """
        history, budget = run.history(), run.budget()
        files = tuple(
            candidate_from_json(record.model_dump(mode="json"), run.path, _no_network)
            for record in history.files
        )
        beaten_by_none = pareto(files)
        best, missed = recommend(beaten_by_none, budget)
        ids = {c.id for c in beaten_by_none}
        rows = rows_of(files, front=ids, best=best.id if best else None)
        return cls(
            path=run.path,
            candidates=files,
            front=Front(beaten_by_none, rows, budget),
            best=best,
            missed=missed,
            failures=history.failures,
            reach=what_would_reach(beaten_by_none, budget),
        )

    @property
    def exit_code(self) -> int:
        """0, or 3 when the budget is missed."""
        return MISSED if self.missed or self.best is None else 0

    @property
    def best_file(self) -> Path | None:
        """The recommended file as it was copied to the top of the run's folder."""
        if self.best is None:
            return None
        return self.path / f"best{self.best.the_artifact().path.suffix}"

    @property
    def rows(self) -> tuple[Row, ...]:
        """A row for every file, the recommended one first."""
        return self.front.rows

    def table(self) -> str:
        """The front, and the original, as text."""
        return str(self.front)

    def summary(self) -> str:
        """One sentence: what is recommended, or by how much the budget is missed."""
        if self.best is None:
            return f"no file was measured; the reasons are in {self.path / 'report.md'}"
        if not self.missed:
            return f"recommended: {self.best_file}"
        by = "; ".join(map(str, self.missed))
        reach = f"; {self.reach}" if self.reach else ""
        return f"the budget is missed; closest: {self.best_file}: {by}{reach}"

    def __str__(self) -> str:
        return f"{self.table()}\n{self.summary()}"

    def _repr_html_(self) -> str:
        return f"{self.front._repr_html_()}<p>{html.escape(self.summary())}</p>"


def _no_network(path: Path) -> Network:
    raise LilliputError("a network is no file", at=str(path))
