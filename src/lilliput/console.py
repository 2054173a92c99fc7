"""What a command prints: results to standard output, all else to standard error."""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from lilliput.errors import LilliputError, missing_part

if TYPE_CHECKING:
    from lilliput.context import Progress
    from lilliput.runs.folder import RunFolder
    from lilliput.runs.result import RunResult

BUG = 1
STOPPED = 130


def show(result: Any, *, as_json: bool) -> None:
    """Print a verb's result: its own text, or its plain values."""
    if not as_json:
        typer.echo(str(result))
        return
    if hasattr(result, "as_json"):
        result = result.as_json()
    elif hasattr(result, "model_dump"):
        result = result.model_dump(mode="json")
    typer.echo(json.dumps(result, indent=1, default=str))


def conclude(result: RunResult, *, as_json: bool) -> int:
    """Print what came of a run: table, recommended file, the line that loads it. Its exit code."""
    from lilliput.meter.bfloat16 import as_meant
    from lilliput.reports import write_report
    from lilliput.reports.snippet import loading_line
    from lilliput.reports.summary import Summary
    from lilliput.reports.table import show_rows
    from lilliput.runs.folder import RunFolder

    run = RunFolder.look(result.path)
    report = write_report(run)
    if as_json:
        show(report.data, as_json=True)
        return result.exit_code
    from rich.console import Console

    show_rows([row for row in result.rows if row.worth_showing], Console())
    summary = Summary.of(run)
    for warning in summary.warnings:
        typer.echo(f"note: {warning}")
    if result.failures:
        count = len(result.failures)
        typer.echo(f"{count} {'attempt' if count == 1 else 'attempts'} failed; the report says why")
    typer.echo(result.summary())
    if result.best_file is not None and result.best is not None:
        where = as_meant(result.best.the_artifact().metadata, summary.target)
        typer.echo(f"load it: {loading_line(result.best_file, where)}")
    typer.echo(f"report: {report.page}")
    return result.exit_code


@contextmanager
def stoppable(run: Path | None, *, as_json: bool = False) -> Iterator[None]:
    """Turn Ctrl-C into the best so far, where it lies, and how to go on.

    However a run ends, its report tells what is there.
    """
    try:
        yield
    except KeyboardInterrupt:
        _show_so_far(run, as_json=as_json)
        typer.echo(_stopped(run), err=True)
        raise typer.Exit(STOPPED) from None
    except LilliputError:
        _report_so_far(run)
        raise


def _show_so_far(run: Path | None, *, as_json: bool) -> None:
    """What a run that ended would print, if it has a file that was measured; its report anyhow."""
    from lilliput.runs.result import RunResult

    so_far = _report_so_far(run)
    if so_far is None:
        return
    with suppress(LilliputError, OSError):
        result = RunResult.of(so_far)
        if result.best is not None:
            conclude(result, as_json=as_json)


def _report_so_far(run: Path | None) -> RunFolder | None:
    """The run, its report written, if there is one that nobody else works in."""
    from lilliput.reports import write_report
    from lilliput.runs.folder import RunFolder, is_run
    from lilliput.runs.lock import holder

    if run is None or not is_run(run) or holder(run) is not None:
        return None
    so_far = RunFolder.look(run)
    # What ended the run is what is told, not why there is no report of it.
    with suppress(LilliputError, OSError):
        write_report(so_far)
    return so_far


def _stopped(run: Path | None) -> str:
    from lilliput.runs.folder import is_run

    if run is None or not is_run(run):
        return "stopped"
    again = f"lilliput resume {shlex.quote(str(run))}"
    return f"stopped; what is done is in {run}; go on with: {again}"


def tell(error: BaseException) -> int:
    """Print an error as a person can use it; its exit code. LILLIPUT_DEBUG=1 shows all of it."""
    if os.environ.get("LILLIPUT_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, ModuleNotFoundError):
        error = missing_part("this command", error) or error
    if isinstance(error, LilliputError):
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        from lilliput.recipe.mistakes import field_of, mistakes_in

        for field, wrong in mistakes_in(error):
            told = LilliputError(wrong.thing, at=field_of(field) or None, hint=wrong.hint)
            typer.echo(f"error: {told}", err=True)
        return LilliputError.exit_code
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        typer.echo(f"error: {error.strerror or error}{place}", err=True)
        return BUG
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    typer.echo(f"error: {type(error).__name__}: {error}{place}", err=True)
    typer.echo(
        "  → this is a bug in lilliput, not your mistake; LILLIPUT_DEBUG=1 shows where it happened",
        err=True,
    )
    return BUG


def hush_broken_pipe() -> None:
    """Stop without a word when whoever reads our output has gone (`lilliput list | head`)."""
    # Python flushes standard output once more at exit, which would fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def progress_for(*, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """What suits the stream (standard error): bars, lines, or nothing."""
    from lilliput.context import SilentProgress
    from lilliput.progress import LineProgress

    if quiet:
        return SilentProgress()
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        return LineProgress(stream)
    from lilliput.progress_bars import BarProgress

    return BarProgress(stream)
