"""Tell what came of a run."""

from __future__ import annotations

from pathlib import Path

from lilliput.reports import Report, write_report
from lilliput.runs.folder import RunFolder


def report(run: Path | str) -> Report:
    """Write report.html, report.md, report.json and front.csv again, from the journal alone.

    Works while the run is under way, after it was stopped, and on machines without torch.

    Args:
        run: The run's folder.

    Raises:
        LilliputError: There is no run, or its journal was changed.
    """
    return write_report(RunFolder.look(run))
