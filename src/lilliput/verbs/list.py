"""Find runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lilliput.errors import LilliputError
from lilliput.reports.summary import Summary
from lilliput.runs import lock
from lilliput.runs.folder import RUNS, RunFolder, is_run
from lilliput.units import format_bytes


@dataclass(frozen=True)
class RunInfo:
    """One run at a glance. `state` is "finished", "stopped", "running, pid N" or "damaged: why"."""

    path: Path
    state: str
    began: str = ""
    files: int = 0
    best: str = ""
    missed: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = f"{self.path}  {self.state}  {self.files} files  {self.best}".rstrip()
        return f"{found}  (budget missed)" if self.missed else found

    def as_json(self) -> dict[str, Any]:
        """The run's facts as plain values."""
        return {**asdict(self), "path": str(self.path), "missed": [*self.missed]}


def list(root: Path | str = RUNS) -> tuple[RunInfo, ...]:  # noqa: A001  # the verb's name
    """The runs in a folder, or the one that it is, newest first.

    Raises:
        LilliputError: There is no such folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise LilliputError(
            f"no folder at {str(root)!r}",
            hint="runs are kept in ./runs unless --out says otherwise: `lilliput list FOLDER`",
        )
    paths = [folder] if is_run(folder) else [p for p in folder.iterdir() if is_run(p)]
    return tuple(sorted(map(_info, paths), key=lambda info: info.began, reverse=True))


def _info(path: Path) -> RunInfo:
    try:
        summary = Summary.of(RunFolder.look(path))
    except LilliputError as error:
        return RunInfo(path, f"damaged: {error.thing}")
    holder = lock.holder(path)
    if holder is not None:
        state = f"running, pid {holder.get('pid')}"
    else:
        state = "stopped" if summary.history.finished is None else "finished"
    return RunInfo(
        path=path,
        state=state,
        began=summary.history.began,
        files=len(summary.rows),
        best=_best(summary),
        missed=tuple(str(miss) for miss in summary.missed),
    )


def _best(summary: Summary) -> str:
    """The recommended file's main figures on one line."""
    for row in summary.rows:
        if row.recommended:
            cells, size = row.cells(), row.figures.get("bytes")
            shown = format_bytes(size.value) if size is not None else ""
            return "  ".join(filter(None, (cells["speed"], cells["change"], shown)))
    return ""
